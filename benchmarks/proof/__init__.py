"""The proof that time holds: recordings with closed-form truth, the real pipeline, the shards read back."""
