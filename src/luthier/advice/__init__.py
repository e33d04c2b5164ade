"""Rank 5: from evidence to advice; every sentence names its rule and its numbers. Measures nothing."""
