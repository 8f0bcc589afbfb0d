"""What is installed beside the code: classes, ontology, and bundled weights."""
