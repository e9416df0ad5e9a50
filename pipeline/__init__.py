"""Puts the parts together: command line, configuration, sources, the Beam graph."""
