"""Libraries that are installed with audiosearch, as `audiosearch._indexes`."""
