"""Measurements of the whole: what a run costs, and whether time holds."""
