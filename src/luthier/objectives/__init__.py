"""Rank 2: how a row becomes targets, and the loss. Knows no optimisers."""
