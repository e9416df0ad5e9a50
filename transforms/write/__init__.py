"""From samples to shards, statistics, manifest and card."""
