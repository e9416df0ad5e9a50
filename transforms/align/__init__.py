"""From timed tracks to the samples of one window."""
