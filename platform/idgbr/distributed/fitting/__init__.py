"""Training of both stages on Ray Train."""
