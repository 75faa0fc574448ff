"""Who may sign what, and how that is changed."""
