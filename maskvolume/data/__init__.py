"""Training samples: batches of views, the order in which they are drawn, recorded and synthetic sources."""
