"""Bundles: fetched, verified, unpacked and applied."""
