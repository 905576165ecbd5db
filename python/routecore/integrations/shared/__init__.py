"""What the host adapters share: settings, a fleet of one strategy, shadow mode, metrics."""
