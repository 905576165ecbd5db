"""A live fleet of simulated engines behind a small gateway, to see strategies at work."""
