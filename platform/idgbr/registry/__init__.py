"""Tracked runs, model versions and aliases in MLflow."""
