"""One module per host router; each imports its host, and only that one does."""
