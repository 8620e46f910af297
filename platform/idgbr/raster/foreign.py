"""What a file is that is neither a raster nor a vector file: said where opening it fails."""

from __future__ import annotations

import os
import re

_HEAD = 2**16
"""Bytes looked at."""
_PIXELS = "annotations in pixels, which are not read; draw them as one mask of class ids (PNG, GeoTIFF) for each image"


def foreign(path: str) -> str:
    """What a local file that GDAL does not recognise is, as a clause with the way out; empty where nobody knows."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not size:
        return "is empty (0 bytes); copy or download it again"
    if text.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not the file; fetch it with git lfs pull"
    if re.match(r"<!doctype html|<html", text, re.IGNORECASE):
        return "is a web page, probably an error message of the server; download the file again"
    if re.search(r"<annotation[ >]", text):
        return f"holds Pascal VOC {_PIXELS}"
    if text.startswith(("{", "[")):
        return _json(text)
    if path.lower().endswith(".txt") and re.match(r"\d+( +[\d.]+){4,}\s", text + "\n"):
        return f"holds YOLO {_PIXELS}"
    return ""


def _json(text: str) -> str:
    if re.search(r'"(annotations|categories)"\s*:\s*\[', text):
        return f"holds COCO {_PIXELS}"
    if '"shapes"' in text and '"imagePath"' in text:
        return f"holds LabelMe {_PIXELS}"
    return "" if '"Feature' in text else "is JSON, but no GeoJSON; expected a FeatureCollection"
