"""Labelled imagery: catalogue, splits, prepared regions, draws, samples and augmentation."""
