"""Libraries on disk that are shipped, installed as the package `audiosearch._indexes`."""
