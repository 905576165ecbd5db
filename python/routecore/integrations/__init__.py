"""Adapters, a folder per host router; each imports its host only when it is itself imported.

`shared` is what they have in common.
"""
