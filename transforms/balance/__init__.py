"""Modality patterns, sampling weights, near-duplicates, and negatives that are none."""
