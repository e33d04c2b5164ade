"""Rank 0: errors, strict specs, result types, whole-or-absent files, locks, hashes, seeds and the event log."""
