"""What has been indexed: catalogue, score columns, vectors, and the `Library` over them."""
