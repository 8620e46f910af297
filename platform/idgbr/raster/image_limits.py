"""What is accepted of an image that arrives as bytes, and the error that says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from idgbr.errors import UserError

Fault = Literal["format", "damaged", "size", "content"]
"""What is wrong: not a format that is read, not readable, too much of it, or readable but of no use."""


class BadImage(UserError):
    """A body that is not a usable image.

    Attributes:
        fault: the kind of fault.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault

    def __reduce__(self) -> tuple[Any, ...]:
        return BadImage, (self.fault, str(self))


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded.

    Attributes:
        pixels: rows times columns.
        bands: bands of the file, whether they are read or not.
    """

    pixels: int = 16 * 2**20
    bands: int = 16


def check_extent(height: int, width: int, bands: int, limits: ImageLimits, what: str) -> None:
    """Refuses an image without pixels, or beyond the limits.

    Raises:
        BadImage: it is empty or too large; `what` names it.
    """
    if height < 1 or width < 1:
        raise BadImage("content", f"{what}: {height} x {width} px; expected at least one pixel")
    if height * width > limits.pixels:
        raise BadImage(
            "size",
            f"{what}: {height} x {width} px are {height * width:,}; at most {limits.pixels:,} are "
            "accepted. Send parts of it, or use jobs/refine.py, which takes any size",
        )
    if bands > limits.bands:
        raise BadImage("size", f"{what}: {bands} bands; at most {limits.bands} are accepted")
