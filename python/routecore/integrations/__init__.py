"""Adapters, one per host router; each imports its host only when it is itself imported."""
