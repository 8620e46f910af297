"""The one two-stage predictor that every executor calls."""
