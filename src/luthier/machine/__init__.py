"""Rank 1: what this machine is and what it measures of itself. Predicts nothing."""
