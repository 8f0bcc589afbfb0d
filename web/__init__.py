"""What the browser gets: templates and static files, installed as the package `audiosearch._web`."""
