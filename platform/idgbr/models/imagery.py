"""Imagery as a model reads it: its bands, and every doubt about whether they are what the model learnt."""

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
    """What whoever asks for a map says about the imagery.

    Attributes:
        bands_from: bands to read, in the model's order; empty: the model's own.
        nodata: overrides the files' nodata value.
        gsd: ground sample distance in metres of files that carry none.
        reading: how doubts about files are settled.
        value_range: what is done with values of another scale than the model learnt.
    """

    bands_from: tuple[int | str, ...] = ()
    nodata: float | None = None
    gsd: float | None = None
    reading: Reading = _STRICT
    value_range: OnValueRange = "refuse"


AS_LEARNT = ImageOptions()
"""Whoever asks for a map says nothing."""


def open_image(
    uri: str, spec: ModelSpec, options: ImageOptions, max_unread: float = 0.0
) -> tuple[Scene, list[Finding]]:
    """The scene at an address with the bands a model reads, checked.

    Args:
        uri: its address.
        spec: the model.
        options: what is said about the imagery.
        max_unread: share of the scene that missing parts may leave without pixels.

    Raises:
        UserError: it cannot be read, or lacks a band.
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
    """How the values of a scene, or of the sheets of one, are to be mapped, and the doubt about them.

    Args:
        name: how messages name them.
        scenes: what is read.
        dtype: type of its pixels.
        spec: the model.
        on: what is done with values of another scale.
    """
    found = measure_range(scenes, dtype)
    finding = found and compare_ranges(name, found, spec.learnt_values, on, "--value-range")
    if not found or not finding:
        return None, []
    return BandMaps.between(found, spec.learnt_values) if on == "match" else None, [finding]


def fitting_scene(uri: str, spec: ModelSpec, options: ImageOptions = AS_LEARNT) -> Scene:
    """The scene at an address as a model reads it; doubts are printed.

    Raises:
        UserError: it cannot be read, lacks a band, or is not what the model learnt.
    """
    scene, findings = open_image(uri, spec, options)
    maps, more = compare_values(uri, [scene], scene.profile().dtype, spec, options.value_range)
    settle([*findings, *more])
    return replace(scene, maps=maps)
