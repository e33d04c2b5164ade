"""Rank 3: batched decoding and remote endpoints. Knows no scoring."""
