"""Doubts about imagery, looked for in one place before a job starts; each names what settles it.

What is looked at is a few windows all over a scene, so that it costs moments, whatever the scene's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from rich.console import Console
from scipy.ndimage import binary_dilation

from idgbr.errors import UserError
from idgbr.raster.alpha import probe_windows
from idgbr.raster.crs import crs_name
from idgbr.raster.findings import Finding
from idgbr.raster.gdal import GDAL_ERRORS, gdal_env, open_quietly
from idgbr.raster.grid import IDENTITY, Window
from idgbr.raster.scene import Scene
from idgbr.raster.source import Source, equal_to

Naming = Literal["data.", "--"]
"""How messages name what settles a doubt: keys of an experiment, or flags of a job."""

_LOSSY = ("JPEG", "WEBP", "JXL", "JPEG2000")
_NEAR = 16
"""Values by which lossy compression moves a margin, at the most."""
_REACH = 8
"""Pixels from a margin that its block reaches."""
_DOUBT = 0.005
"""Share of a margin's pixels that has to be off before it is worth a line."""
_COLLAR = 0.02
"""Share of pixels that are all 0, or all the highest value, from which on they look like a margin."""
_SHOWN = 3
_CHIP = 1024


def key_of(name: str, naming: Naming) -> str:
    """The key of an experiment, or the flag of a job, by its name."""
    return f"data.{name}" if naming == "data." else f"--{name.replace('_', '-')}"


def image_findings(scene: Scene, naming: Naming, max_unread: float = 0.0, with_pixels: bool = True) -> list[Finding]:
    """All findings about a scene that do not depend on a model.

    Args:
        scene: the scene as it will be read.
        naming: how messages name keys.
        max_unread: share of the scene that missing parts may leave without pixels.
        with_pixels: whether margins are looked at, which takes reading.
    """
    with gdal_env(scene.uri):
        source = scene.whole().source()
        indexes = source.indexes(scene.bands)
        found = [
            _missing(scene, source, indexes, naming, max_unread),
            _alpha(source, scene, naming),
            _points(source, scene, naming),
            _unit(source, scene, naming),
            *(_margins(source, indexes, scene, naming) if with_pixels else []),
        ]
    return [finding for finding in found if finding is not None]


def settle(findings: Iterable[Finding], console: Console | None = None) -> None:
    """Prints warnings, of many alike the first few, and ends the job where there is an error.

    Raises:
        UserError: every error, one a line.
    """
    console = console or Console(soft_wrap=True)
    known = list(dict.fromkeys(findings))
    for severity in ("warning", "error"):
        lines = lines_of([finding for finding in known if finding.severity == severity])
        if severity == "error" and lines:
            raise UserError("\n".join(lines))
        for line in lines:
            console.print(f"warning: {line}", highlight=False, markup=False, soft_wrap=True)


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Findings as lines: of many with the same key and advice the first few, and the number of the others."""
    by_kind: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault((finding.key, finding.advice), []).append(finding)
    lines = []
    for alike in by_kind.values():
        lines += [finding.message() for finding in alike[:_SHOWN]]
        if len(alike) > _SHOWN:
            lines.append(f"... and {len(alike) - _SHOWN} more files of which the same holds (`{alike[0].key}`)")
    return lines


def _missing(scene: Scene, source: Source, indexes: list[int], naming: Naming, max_unread: float) -> Finding | None:
    gone = source.missing(source.grid.window, indexes)
    if not gone:
        return None
    tiles = source.grid.window.tiles(1024)
    share = sum(int(source.unread(tile, indexes).sum()) for tile in tiles) / (source.grid.height * source.grid.width)
    listed = ", ".join(gone[:_SHOWN]) + (f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else "")
    found = f"{len(gone)} of the files it is made of cannot be opened ({listed}): {share:.2%} of its ground is nodata"
    advice = "bring them back, or build it anew from what is there (gdalbuildvrt)"
    if naming == "data.":
        return Finding(scene.uri, found, "", advice, "error")
    over = share > max_unread
    more = f"{advice}; a larger share than {max_unread:g} has to be allowed" if over else advice
    return Finding(scene.uri, found, "--max-unreadable", more, "error" if over else "warning")


def _alpha(source: Source, scene: Scene, naming: Naming) -> Finding | None:
    tagged, key = source.tagged_alpha, key_of("alpha", naming)
    if tagged is None:
        return None
    if scene.reading.alpha == "auto" and not source.alpha:
        found = f"band {tagged} is tagged alpha but holds imagery (near infrared, mostly), so all pixels count as valid"
        return Finding(
            scene.uri, found, key, "mask takes its zeros for nodata, band or ignore end this line", "warning"
        )
    if scene.reading.alpha != "mask":
        return None
    windows = list(_probes(source))
    share = float(np.mean([float((source.read_alpha(w, tagged) == 0).mean()) for w in windows]))
    if share == 0:
        return None
    return Finding(scene.uri, f"alpha is 0 in {share:.1%} of the pixels, which are nodata", key, "", "warning")


def _points(source: Source, scene: Scene, naming: Naming) -> Finding | None:
    if source.by_points:
        crs, size = crs_name(source.native.crs), f"{source.native.width} x {source.native.height} px"
        found = f"is read warped by its ground control points into {crs}, {size}"
        return Finding(scene.uri, found, key_of("gcps", naming), "", "warning")
    if source.native.georeferenced or not (source.file.gcps[0] or source.file.rpcs):
        return None
    found = "its ground control points, or its sensor model, are not used, so what is made of it has no place"
    return Finding(scene.uri, found, key_of("gcps", naming), "", "warning")


def _unit(source: Source, scene: Scene, naming: Naming) -> Finding | None:
    if scene.gsd is not None or source.native.crs is None or source.native.gsd is not None:
        return None
    if source.native.transform == IDENTITY:
        found = f"has a CRS ({crs_name(source.native.crs)}) but no transform, so nobody knows where its pixels lie"
        return Finding(scene.uri, found, "", "assign one (gdal_edit -a_ullr) to have a map in its place", "warning")
    found = (
        f"the unit of its CRS ({crs_name(source.native.crs)}) is not known, so the scale of its pixels is not checked"
    )
    return Finding(scene.uri, found, key_of("gsd", naming), "set it to the pixel size in metres", "warning")


def _margins(source: Source, indexes: list[int], scene: Scene, naming: Naming) -> list[Finding]:
    """Margins that compression blurred, that a tolerance takes away, or that nothing declares."""
    if indexes[0] < 0 or (source.nodata is not None and math.isnan(source.nodata)):
        return []
    read = []
    for window in _probes(source):
        try:
            read.append(source.read_native(window, indexes))
        except GDAL_ERRORS:
            continue  # whoever reads it counts what cannot be read
    if source.nodata is None:
        return _undeclared(source, read, scene, naming)
    exact = [equal_to(pixels, source.nodata).all(axis=0) for pixels in read]
    tolerance = scene.reading.nodata_tolerance
    if tolerance:
        more = sum(
            int((equal_to(p, source.nodata, tolerance).all(axis=0) & ~e).sum())
            for p, e in zip(read, exact, strict=True)
        )
        share = more / max(1, sum(e.size for e in exact))
        words = f"{share:.2%} of its pixels are within {tolerance:g} of nodata ({source.nodata:g}) and nodata, too"
        return [Finding(scene.uri, words, key_of("nodata_tolerance", naming), "", "warning")] if more else []
    if not _lossy(source):
        return []
    off, margin = [], 0
    for pixels, nodata in zip(read, exact, strict=True):
        distance = np.abs(pixels.astype(np.float64) - source.nodata).max(axis=0)
        near = (distance <= _NEAR) & ~nodata & binary_dilation(nodata, iterations=_REACH)
        off.append(distance[near])
        margin += int(nodata.sum())
    distances = np.concatenate(off) if off else np.zeros(0)
    if len(distances) <= _DOUBT * (margin + len(distances)):
        return []
    words = (
        f"its compression blurs the margin: {len(distances) / (margin + len(distances)):.0%} of the pixels near nodata "
        f"({source.nodata:g}) are not exactly that, and count as ground"
    )
    advice = f"about {math.ceil(np.quantile(distances, 0.99)):d} takes them for nodata"
    return [Finding(scene.uri, words, key_of("nodata_tolerance", naming), advice, "warning")]


def _undeclared(source: Source, read: list[np.ndarray], scene: Scene, naming: Naming) -> list[Finding]:
    if source.alpha or source.masked or source.parts.layers or not read or len(read[0]) < 2:
        return []
    total = sum(pixels[0].size for pixels in read)
    highest = np.iinfo(read[0].dtype).max if read[0].dtype.kind in "iu" else None
    for value in (0, highest):
        share = sum(int((pixels == value).all(axis=0).sum()) for pixels in read) / total if value is not None else 0
        if share > _COLLAR:
            found = (
                f"{share:.0%} of its pixels are {value} in every band and count as ground, since no nodata is declared"
            )
            advice = f"set it to {value} if that is a margin"
            return [Finding(scene.uri, found, key_of("nodata", naming), advice, "warning")]
    return []


def _probes(source: Source) -> Iterator[Window]:
    """Windows all over the file: of a chip its corners."""
    height, width = source.native.height, source.native.width
    return probe_windows(height, width, per_side=4 if max(height, width) > _CHIP else 2)


def _lossy(source: Source) -> bool:
    """Whether the file, or the first file that a virtual raster shows, is compressed with a loss."""
    first = source.file.files[1] if source.file.driver == "VRT" and len(source.file.files) > 1 else ""
    try:
        if first:
            with open_quietly(first) as part:
                kind = part.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", part.driver)
        else:
            kind = source.file.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", source.file.driver)
    except GDAL_ERRORS:
        return False
    return any(name in kind.upper() for name in _LOSSY)
