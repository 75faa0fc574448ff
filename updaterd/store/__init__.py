"""What must survive: one SQLite file, shared by the daemon and its workers."""
