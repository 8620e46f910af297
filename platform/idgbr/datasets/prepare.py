"""Prepared regions: labels as index rasters on the region's grid, imagery that windows can be read from quickly,
and the figures that training needs to know beforehand.

One region at a time and in strips, so regions can be prepared anywhere and memory does not grow with their height.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from idgbr import IGNORE
from idgbr.config.data import DataConfig
from idgbr.datasets.lattice import boundary_mask
from idgbr.datasets.normalisation import BandStats
from idgbr.datasets.splits import Region
from idgbr.errors import UserError
from idgbr.files import atomic_path, hash_text, write_atomically
from idgbr.raster.gdal import GDAL_ERRORS, gdal_env, open_quietly, version_of
from idgbr.raster.grid import Grid, Window
from idgbr.raster.labels import label_reader
from idgbr.raster.scene import Scene

_STRIP = 256
_SMALL = 512 * 512  # pixels; an image up to this size is decoded in one go, tiles or not
_VERSION = 3  # raised when prepared files change, so that those of an older version are made anew


@dataclass(frozen=True)
class PreparedRegion:
    """A region ready to draw windows from; everything downstream sees these.

    Attributes:
        id: the region's name.
        split: train, select or test.
        image: the imagery of the region; pixel (0, 0) is the region's first.
        label: tiled uint8 GeoTIFF of class ids on `grid`, 255 where there is no label or no valid image pixel.
        grid: the region's grid.
        origin: row and column of the region's first pixel in its scene.
        histogram: labelled pixels per class.
        boundary_pixels: labelled pixels whose right or lower neighbour is of another class.
        valid_pixels: pixels with valid imagery.
        stats: band figures over the valid pixels.
        coarse: coarse map on `grid`: class ids in band 1, then optionally probabilities times 255. Set by
            `prepare_region` where the source brings a rough map, otherwise filled in when stage 1 has run.
        digest: hash of the region's pixels and labels, wherever and in whatever format they lie.
        notes: what happened to valid pixels on their way to class ids (no label, and why), and to how many of them.
    """

    id: str
    split: str
    image: Scene
    label: str
    grid: Grid
    origin: tuple[int, int]
    histogram: tuple[int, ...]
    boundary_pixels: int
    valid_pixels: int
    stats: BandStats
    coarse: str | None = None
    digest: str = ""
    notes: tuple[tuple[str, int], ...] = ()


def prepare_region(region: Region, data: DataConfig, folder: str) -> PreparedRegion:
    """Prepares one region; a region prepared before from the same files and settings is taken as it is.

    Args:
        region: the rectangle of a scene.
        data: classes and how labels are stored.
        folder: local or shared folder for the prepared files; created if needed.

    Raises:
        UserError: imagery or label cannot be read, differ in size or georeference, or the label has an unknown class.
    """
    name = f"{region.id}-{_source_key(region, data)}"
    target = Path(folder) / name
    record = target.with_name(f"{name}.json")
    image = region.scene.image.crop(region.window)
    copied = not _quick_to_read(region.scene.image)
    paths = {"label": Path(f"{target}_label.tif")}
    if copied:
        paths["image"] = Path(f"{target}_image.tif")
    if region.scene.rough is not None:
        paths["coarse"] = Path(f"{target}_rough.tif")
    if record.is_file() and all(path.is_file() for path in paths.values()):
        figures = json.loads(record.read_text(encoding="utf-8"))
    else:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            figures = _convert(region, image, data, paths)
            write_atomically(record, json.dumps(figures))
        except (OSError, *GDAL_ERRORS) as error:
            raise UserError(f"{folder}: cannot write the prepared files of {region.id} ({error})") from error
    ready = Scene(str(paths["image"]), gsd=image.gsd or image.resample_to) if copied else image
    return PreparedRegion(
        id=region.id,
        split=region.split,
        image=ready,
        label=str(paths["label"]),
        grid=image.grid(),
        origin=image.origin,
        histogram=tuple(figures["histogram"]),
        boundary_pixels=figures["boundary_pixels"],
        valid_pixels=figures["valid_pixels"],
        digest=figures["digest"],
        stats=BandStats(*(tuple(figures[key]) for key in ("count", "mean", "m2"))),
        coarse=str(paths["coarse"]) if "coarse" in paths else None,
        notes=tuple((note, count) for note, count in figures["notes"]),
    )


def _source_key(region: Region, data: DataConfig) -> str:
    """What the prepared files depend on, hashed. Remote files count by address: they carry no modification time."""
    sources = [uri for uri in (region.scene.image.uri, region.scene.label, region.scene.rough) if uri]
    parts = [
        _VERSION,
        repr(region.scene.image),
        repr(region.window),
        region.scene.label_config(data.label).model_dump_json(exclude={"allow_missing"}),
        [c.model_dump_json() for c in data.classes],
        [(os.path.abspath(u), version_of(u)) for u in sources],
    ]
    return hash_text(json.dumps(parts), 12)


def _quick_to_read(image: Scene) -> bool:
    """Whether a window costs about a window: tiled, or small enough to be decoded whole, and not resampled."""
    profile = image.profile()
    return image.resample_to is None and (profile.tiled or profile.height * profile.width <= _SMALL)


def _convert(region: Region, image: Scene, data: DataConfig, paths: dict[str, Path]) -> dict[str, Any]:
    """Writes the files of a region strip by strip and returns its figures."""
    grid = image.grid()
    bands, dtype = len(image.bands or image.profile().selected), image.profile().dtype
    histogram = np.zeros(len(data.classes), np.int64)
    stats, boundary, valid_pixels, digest = BandStats.empty(bands), 0, 0, hashlib.blake2b(digest_size=16)
    above: NDArray[np.uint8] | None = None
    labels = label_reader(region.scene.label, image, data.classes, region.scene.label_config(data.label))
    rough = label_reader(region.scene.rough, image, data.classes, data.label) if region.scene.rough else None
    notes: Counter[str] = Counter()
    with ExitStack() as stack:
        files = {
            kind: stack.enter_context(_tiled(path, grid, bands if kind == "image" else 1, dtype, kind == "image"))
            for kind, path in paths.items()
        }
        for top in range(0, grid.height, _STRIP):
            window = Window(top, 0, min(_STRIP, grid.height - top), grid.width)
            pixels, valid = image.read(window)
            found, reasons = labels.explain(window)
            label = np.where(valid, found, np.uint8(IGNORE))
            notes.update({note: int((where & valid).sum()) for note, where in reasons.items()})
            stats += BandStats.of(pixels, valid)
            valid_pixels += int(valid.sum())
            histogram += np.bincount(label.ravel(), minlength=256)[: len(data.classes)]
            joined = label if above is None else np.concatenate([above, label])
            # The row above was counted with its own strip, but for its edges to this one.
            boundary += int(boundary_mask(joined).sum()) - (int(boundary_mask(above).sum()) if above is not None else 0)
            above = label[-1:]
            for part in (np.where(valid, pixels, 0), label):
                digest.update(np.ascontiguousarray(part).data)
            place = window.to_rasterio()
            files["label"].write(label, 1, window=place)
            if "image" in files:
                files["image"].write(np.where(valid, pixels, 0).astype(dtype), window=place)
                files["image"].write_mask(valid, window=place)
            if rough is not None:
                files["coarse"].write(rough.explain(window)[0], 1, window=place)
    return {
        "histogram": histogram.tolist(),
        "boundary_pixels": boundary,
        "valid_pixels": valid_pixels,
        "count": stats.count,
        "mean": stats.mean,
        "m2": stats.m2,
        "digest": digest.hexdigest(),
        "notes": [(note, count) for note, count in sorted(notes.items()) if count],
    }


@contextmanager
def _tiled(path: Path, grid: Grid, bands: int, dtype: str, image: bool) -> Iterator[rasterio.io.DatasetWriter]:
    """A tiled GeoTIFF open for writing; it takes its name only when it is whole."""
    # Without a photometric GDAL takes the fourth of four uint8 bands, near infrared say, for alpha.
    options: dict[str, Any] = {"photometric": "MINISBLACK", "dtype": dtype if image else "uint8"}
    options["nodata"] = None if image else IGNORE
    if grid.georeferenced:
        options |= {"crs": grid.crs, "transform": grid.affine}
    with (
        atomic_path(path) as temporary,
        gdal_env(),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        open_quietly(
            str(temporary),
            mode="w",
            driver="GTiff",
            count=bands,
            height=grid.height,
            width=grid.width,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="zstd",
            zstd_level=1,
            BIGTIFF="IF_SAFER",
            **options,
        ) as dst,
    ):
        yield dst


def with_coarse(prepared: PreparedRegion, coarse: str) -> PreparedRegion:
    """The region with its coarse map filled in."""
    return replace(prepared, coarse=coarse)
