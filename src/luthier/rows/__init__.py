"""Rank 1: read, validate, render, tokenise with a target mask, split, dedupe and pack rows. Knows no losses."""
