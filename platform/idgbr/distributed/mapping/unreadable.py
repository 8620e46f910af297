"""Windows of a scene that cannot be read: they become nodata in its map and are recorded; too many stop the job."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from idgbr.errors import UserError
from idgbr.raster.grid import Window


@dataclass
class Unreadable:
    """Record of the unreadable windows of one pass over a scene, in a file that a resumed job continues."""

    path: str
    share: float
    """Of the windows of the plan, how many may be unreadable."""
    total: int = 0
    """Windows of the plan."""

    def add(self, scene: str, window: Window, reason: str) -> None:
        """Note a window.

        Raises:
            UserError: there are too many.
        """
        self.notes[window] = reason
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps([*astuple(window), reason]) + "\n")
        if len(self.notes) > self.share * self.total:
            raise UserError(
                f"{scene}: {len(self.notes)} of {self.total} windows cannot be read, more than --max-unreadable "
                f"{self.share:g}; the last one: {reason} What is done is kept: name a larger share to have nodata there"
            )

    @functools.cached_property
    def notes(self) -> dict[Window, str]:
        """The windows and what was wrong with them."""
        path = Path(self.path)
        # A job that was killed may have left half a line.
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {Window(*place): reason for *place, reason in (json.loads(line) for line in lines if line[-1:] == "]")}


def write_manifest(path: Path, place: Window, passes: Iterable[Unreadable]) -> int:
    """Write what of a map is nodata because it could not be read, beside the map; nothing where there is no such.

    Args:
        path: the map.
        place: the map's place on the grid that windows count from.
        passes: notes of both passes.

    Returns:
        How many windows of the map were unreadable.
    """
    notes = {window: reason for one in passes for window, reason in one.notes.items()}
    found = [
        {**asdict(window.shift(-place.row, -place.col)), "reason": reason}
        for window, reason in sorted(notes.items())
        if window.intersect(place) is not None
    ]
    manifest = path.with_suffix(".manifest.json")
    manifest.unlink(missing_ok=True)
    if found:
        manifest.write_text(json.dumps({"map": path.name, "unreadable": found}, indent=1))
    return len(found)
