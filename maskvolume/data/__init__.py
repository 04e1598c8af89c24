"""Training samples: batches of views, the order of sampling, recorded and synthetic sources."""
