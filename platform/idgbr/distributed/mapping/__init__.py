"""Coarse and refined maps of scenes over Ray Data and pools of actors."""
