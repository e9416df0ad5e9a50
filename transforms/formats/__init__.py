"""Sample rows to files: one file for each output format."""
