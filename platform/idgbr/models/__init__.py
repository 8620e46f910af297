"""Networks of both stages, the sampler, and the model folder. Plain PyTorch."""
