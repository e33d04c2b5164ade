"""Rank 7: the command line: parse, call a verb, print."""
