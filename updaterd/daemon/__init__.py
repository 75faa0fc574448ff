"""The daemon: one supervisor that stays small, workers that come and go."""
