"""The fast step for Llama-like models: the whole decoder body with its backward written out."""
