"""A run: the Beam graph, its steps as plain functions, what is kept for a resume."""
