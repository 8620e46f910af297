"""Pixels on disk: scenes, mosaics, window plans, blending, and the writers of COGs and polygons. No torch, no Ray."""
