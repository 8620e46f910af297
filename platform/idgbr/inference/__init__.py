"""The one two-stage predictor that every executor calls, and `refine`, one call for people."""
