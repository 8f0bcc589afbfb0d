"""What maintainers run: documents, data files and the bundled embedder's training."""
