"""One script for each tool; each runs in its own environment, in a fresh process."""
