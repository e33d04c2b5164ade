"""Rank 2: documents become passages, passages an index, and the index answers queries. Knows nothing of prompts."""
