"""A fleet of simulated engines behind a gateway, to see strategies side by side."""
