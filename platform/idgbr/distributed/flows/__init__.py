"""Whole jobs: pipeline, evaluation, quality gate and promotion."""
