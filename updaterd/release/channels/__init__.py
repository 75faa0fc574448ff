"""What a channel offers, and to whom."""
