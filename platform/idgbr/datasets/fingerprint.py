"""One short string that says which data an experiment saw."""

from __future__ import annotations

from collections.abc import Sequence

from idgbr.datasets.prepare import PreparedRegion
from idgbr.files import hash_text


def fingerprint(prepared: Sequence[PreparedRegion]) -> str:
    """Sixteen hex digits over every region's name, split, place, pixels and labels.

    Independent of the regions' order and of where or in what format the files lie: the same data on another machine
    has the same fingerprint.
    """
    lines = sorted(f"{p.id}\t{p.split}\t{p.origin}\t{p.grid.height}x{p.grid.width}\t{p.digest}" for p in prepared)
    return hash_text("\n".join(lines))
