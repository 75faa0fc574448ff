"""Keys that sign: where each is kept, and how it is reached."""
