"""What image files are like: size, place, bands, values, and what share of pixels is not valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from rich import box
from rich.table import Table

from idgbr.datasets.labelled import GSD_FACTOR
from idgbr.raster.crs import crs_name
from idgbr.raster.findings import Finding
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene, SceneProfile

_SIDE = 256
_PER_SIDE = 4
"""Windows of a scene that are looked at: so many times so many, evenly spread."""


@dataclass(frozen=True)
class ImageSurvey:
    """One image file, and what a regular sample of its windows holds.

    Attributes:
        uri: the file.
        profile: driver, size, bands, blocks, overviews.
        crs: short name of its CRS, `none` without.
        gsd: ground sample distance in metres; None where the file does not say.
        low: smallest valid value per band that is read.
        high: largest one.
        invalid: share of pixels that nodata, mask or alpha make invalid.
    """

    uri: str
    profile: SceneProfile
    crs: str
    gsd: float | None
    low: tuple[float, ...]
    high: tuple[float, ...]
    invalid: float


def survey_image(uri: str) -> ImageSurvey:
    """Looks at an image.

    Raises:
        UserError: the file is missing, unreadable or damaged, or has not one valid pixel.
    """
    scene = Scene(uri)
    profile, grid = scene.profile(), scene.grid()
    read = scene.read_each(_probes(grid.height, grid.width))
    pixels = np.concatenate([p.reshape(len(p), -1) for p, _ in read], axis=1)
    valid = np.concatenate([v.ravel() for _, v in read])
    seen = pixels[:, valid]
    if not seen.size:
        scene.check()
    return ImageSurvey(
        uri=uri,
        profile=profile,
        crs=crs_name(grid.crs),
        gsd=grid.gsd,
        low=tuple(float(v) for v in seen.min(axis=1)) if seen.size else (),
        high=tuple(float(v) for v in seen.max(axis=1)) if seen.size else (),
        invalid=float(1 - valid.mean()),
    )


def set_findings(surveys: Sequence[ImageSurvey]) -> list[Finding]:
    """Differences between the images of a data set; what is doubtful about each is in `idgbr.raster.imagery`."""
    found = []
    first = surveys[0]
    for one in surveys:
        if one.profile.dtype != first.profile.dtype:
            sentence = f"pixels of type {one.profile.dtype}, those of {first.uri} are {first.profile.dtype}"
            found.append(Finding(one.uri, sentence, "", "bring all images to one type", "error"))
        if len(one.profile.selected) != len(first.profile.selected):
            sentence = f"{len(one.profile.selected)} band(s), {first.uri} has {len(first.profile.selected)}"
            found.append(Finding(one.uri, sentence, "data.bands", "name bands that all images have", "warning"))
    known = sorted(one.gsd for one in surveys if one.gsd is not None)
    if not known and all(one.crs == "none" for one in surveys):
        advice = "set it, so that imagery of another scale is refused later"
        found.append(Finding(_named(surveys), "no ground sample distance in the files", "data.gsd", advice, "warning"))
    elif known and known[-1] > GSD_FACTOR * known[0]:
        sentence = f"ground sample distances from {known[0]:.3g} to {known[-1]:.3g} m"
        advice = "resample brings all images to one of them"
        found.append(Finding(_named(surveys), sentence, "data.gsd_mismatch", advice, "warning"))
    return found


def image_table(surveys: Sequence[ImageSurvey], files: int) -> Table:
    """A row for all images that are alike; `files` is the number of images of which these are a sample."""
    table = Table(title="Images" + sampled(len(surveys), files), box=box.SIMPLE)
    for heading in ("files", "first", "format", "rows x columns", "CRS", "m a pixel", "bands", "type", "values",
                    "nodata", "invalid", "blocks", "overviews"):  # fmt: skip
        table.add_column(heading, overflow="fold")
    groups: dict[tuple[object, ...], list[ImageSurvey]] = {}
    for one in surveys:
        p = one.profile
        key = (p.driver, p.height, p.width, one.crs, p.bands, p.dtype, p.nodata, p.block, p.overviews)
        groups.setdefault(key, []).append(one)
    for group in sorted(groups.values(), key=len, reverse=True)[:20]:
        p = group[0].profile
        low = min((v for one in group for v in one.low), default=0.0)
        high = max((v for one in group for v in one.high), default=0.0)
        table.add_row(
            str(len(group)), PurePosixPath(group[0].uri).name, p.driver, f"{p.height} x {p.width}", group[0].crs,
            "?" if group[0].gsd is None else f"{group[0].gsd:.3g}", ", ".join(p.bands), p.dtype, f"{low:g} to {high:g}",
            "none" if p.nodata is None else f"{p.nodata:g}", f"{np.mean([one.invalid for one in group]):.1%}",
            f"{p.block[0]} x {p.block[1]}", ", ".join(map(str, p.overviews)) or "none",
        )  # fmt: skip
    if len(groups) > 20:
        table.add_row(str(len(surveys)), f"and {len(groups) - 20} other kinds")
    return table


def sampled(looked_at: int, files: int) -> str:
    """For a title: how many of the files were looked at, if not all."""
    return f" ({looked_at} of {files} were looked at)" if looked_at < files else ""


def common_bands(surveys: Sequence[ImageSurvey]) -> list[int]:
    """1-based indices of the bands that most images have; alpha is none of them."""
    (bands, _), *_ = Counter(one.profile.selected for one in surveys).most_common(1)
    return list(bands)


def _probes(height: int, width: int) -> list[Window]:
    rows, cols = (
        sorted({round(i * max(0, length - _SIDE) / (_PER_SIDE - 1)) for i in range(_PER_SIDE)})
        for length in (height, width)
    )
    return [Window(r, c, min(_SIDE, height), min(_SIDE, width)) for r in rows for c in cols]


def _named(surveys: Sequence[ImageSurvey]) -> str:
    return surveys[0].uri + (f" and {len(surveys) - 1} more" if len(surveys) > 1 else "")
