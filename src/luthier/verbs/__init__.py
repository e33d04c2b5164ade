"""Rank 6: one function per verb: wires rooms together, writes the run directory, returns the result."""
