"""Losses and training tasks of both stages, as plain PyTorch."""
