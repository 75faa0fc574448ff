"""Signed metadata: python-tuf over httpx, and nothing else that is believed."""
