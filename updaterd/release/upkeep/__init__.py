"""Keeping a repository fit: expiry, verification, garbage, recovery."""
