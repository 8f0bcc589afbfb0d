"""What the browser gets: templates and static files; installed as `audiosearch._web`."""
