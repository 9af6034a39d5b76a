"""Owner of the engine containers and processes."""
