"""Rank 2: chunk documents, index them by keyword and vector, and search. Knows no prompts."""
