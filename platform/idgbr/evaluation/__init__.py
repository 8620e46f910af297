"""Metrics (region, boundary, repair), classical baselines, bootstrap intervals and the report. Plain Python, no Ray."""
