"""The daemon's ear: a Server-Sent-Events subscription over httpx."""
