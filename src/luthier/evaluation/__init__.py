"""Rank 4: metrics, systems, statistics and the prompt search. Has no opinions."""
