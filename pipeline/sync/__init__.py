"""Measuring the clocks of a data set's recordings, on Beam."""
