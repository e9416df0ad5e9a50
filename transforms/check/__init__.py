"""Looking at what was written, or at what came in."""
