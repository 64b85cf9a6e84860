"""Features to a volume: its frame, pooling into cells, the networks that smooth it."""
