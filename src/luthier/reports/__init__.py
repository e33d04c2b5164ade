"""Rank 5: figures, the one-page report and the terminal summary, made from result types alone. Computes nothing new."""
