"""One file per data set; each gives recordings from metadata alone."""
