"""Rank 2: what is trained on top of a base model: inject, save, load, switch. Knows no training."""
