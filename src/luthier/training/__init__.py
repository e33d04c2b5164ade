"""Rank 3: the step, the optimiser, batches, checkpoints and resume. Does not know what a loss means."""
