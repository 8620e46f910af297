"""The commands of `jobs/convert.py`, one a file."""
