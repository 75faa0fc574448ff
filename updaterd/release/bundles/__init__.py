"""Bundles: full ones, deltas between releases, and the proof that they apply."""
