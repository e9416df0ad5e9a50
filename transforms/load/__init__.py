"""Reading a finished data set for training: who reads what, in which order, and the batches."""
