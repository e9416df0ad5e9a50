"""Which windows there are, and which segment and shard each belongs to."""
