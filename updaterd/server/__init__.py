"""The feed server: announces, replays, serves files. It holds no keys."""
