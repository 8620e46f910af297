"""One short string that says which data an experiment saw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from idgbr.datasets.prepare import PreparedRegion


def fingerprint(prepared: Sequence[PreparedRegion]) -> str:
    """Sixteen hex digits over every region's name, split, place, pixels and labels.

    Independent of the regions' order and of where or in what format the files lie: the same data on another machine
    has the same fingerprint.
    """
    lines = sorted(f"{p.id}\t{p.split}\t{p.origin}\t{p.grid.height}x{p.grid.width}\t{p.digest}" for p in prepared)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
