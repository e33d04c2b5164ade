"""Rank 4: predict bytes, seconds and money before anything runs; choose what fits. Trains nothing."""
