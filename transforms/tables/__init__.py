"""Time-stamped tables: rows, spans of bytes, the survey of a whole file."""
