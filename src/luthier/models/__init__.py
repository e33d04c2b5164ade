"""Rank 1: find and load base models, their precision and provenance, and run them over packs. Knows no adapters."""
