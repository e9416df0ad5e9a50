"""Whose clock is right: measures the clocks of streams from their content, and says how sure it is."""
