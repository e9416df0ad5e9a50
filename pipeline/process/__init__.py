"""Other processes: decoders in isolation, workers, progress, stopping."""
