"""IDGBR: boundary-refined segmentation of remote-sensing imagery."""

__version__ = "0.1.0"

IGNORE = 255
"""The one ignore value, from label to loss to metric to output."""
