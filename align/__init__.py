"""Time-aligned, image-paired windows from raw egocentric recordings."""
