"""Opens imagery with the bands that a model needs, and checks whether it resembles the model's training imagery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from idgbr.models.description import ModelSpec
from idgbr.raster.bands import choose_bands
from idgbr.raster.findings import Finding
from idgbr.raster.gdal import gdal_env
from idgbr.raster.imagery import image_findings, settle
from idgbr.raster.opening import Reading
from idgbr.raster.scene import Scene
from idgbr.raster.values import BandMaps, OnValueRange, Readable, compare_colours, compare_ranges, measure_range

_STRICT = Reading(gcps="refuse")


@dataclass(frozen=True)
class ImageOptions:
    """The user's settings for reading imagery.

    Attributes:
        bands_from: bands to read, in the model's order; empty: the bands in the model's description.
        nodata: overrides the files' nodata value.
        gsd: ground sample distance in metres, for files without one.
        reading: how ambiguous files are read.
        value_range: treatment of values on another scale than the training imagery.
    """

    bands_from: tuple[int | str, ...] = ()
    nodata: float | None = None
    gsd: float | None = None
    reading: Reading = _STRICT
    value_range: OnValueRange = "refuse"


AS_LEARNT = ImageOptions()
"""Default settings."""


def open_image(
    uri: str, spec: ModelSpec, options: ImageOptions, max_unread: float = 0.0
) -> tuple[Scene, list[Finding]]:
    """Open a scene with the bands that a model needs, and check it.

    Args:
        uri: address of the scene.
        spec: description of the model.
        options: the user's settings for reading.
        max_unread: largest share of the scene that may have no pixels because parts are missing.

    Raises:
        UserError: the scene cannot be read, or lacks a band.
    """
    scene = Scene(uri, nodata=options.nodata, reading=options.reading)
    with gdal_env(uri):
        bands, note = choose_bands(scene.source(), spec.bands, options.bands_from, "--bands-from")
    scene = replace(scene, bands=bands)
    if scene.grid().gsd is None:
        scene = replace(scene, gsd=options.gsd)
    scene.check()
    findings = [note] if note else []
    findings += image_findings(scene, "--", max_unread)
    if not options.bands_from:
        swapped = compare_colours(uri, scene.colours(), spec.learnt_values, "--bands-from")
        findings += [swapped] if swapped else []
    if scene.resolution() is None and spec.gsd is not None:
        found = f"has no ground sample distance; the model was trained at {spec.gsd:.3g} m and finds nothing at another"
        findings.append(
            Finding(uri, found, "--gsd", "set it to the pixel size in metres to have it checked", "warning")
        )
    return scene, findings


def compare_values(
    name: str, scenes: Sequence[Readable], dtype: str, spec: ModelSpec, on: OnValueRange
) -> tuple[BandMaps | None, list[Finding]]:
    """Compare the values of a scene, or of the sheets of a scene, with those of the training imagery.

    Args:
        name: name of the imagery for messages.
        scenes: the scene or its sheets.
        dtype: data type of the pixels.
        spec: description of the model.
        on: treatment of values on another scale.
    """
    found = measure_range(scenes, dtype)
    finding = found and compare_ranges(name, found, spec.learnt_values, on, "--value-range")
    if not found or not finding:
        return None, []
    return BandMaps.between(found, spec.learnt_values) if on == "match" else None, [finding]


def fitting_scene(uri: str, spec: ModelSpec, options: ImageOptions = AS_LEARNT) -> Scene:
    """Open a scene for a model, and print warnings about differences from the training imagery.

    Raises:
        UserError: the scene cannot be read, lacks a band, or is unlike the training imagery.
    """
    scene, findings = open_image(uri, spec, options)
    maps, more = compare_values(uri, [scene], scene.profile().dtype, spec, options.value_range)
    settle([*findings, *more])
    return replace(scene, maps=maps)
