"""Kernels of the training step: native ones where a compiler is at hand, plain PyTorch otherwise."""
