"""Indexes that other loaders want beside our tars: Energon, DALI, wids."""
