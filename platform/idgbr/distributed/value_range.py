"""Compares prepared imagery with a model's training imagery; prints warnings, refuses or maps another value scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from idgbr.datasets.prepare import PreparedRegion
from idgbr.models.description import ModelSpec
from idgbr.raster.findings import Finding
from idgbr.raster.imagery import settle
from idgbr.raster.values import BandMaps, OnValueRange, compare_ranges, measure_range


def fit_values(regions: Sequence[PreparedRegion], spec: ModelSpec, on: OnValueRange) -> list[PreparedRegion]:
    """The regions as the model can read them.

    Args:
        regions: imagery of any value range.
        spec: the model.
        on: what is done with imagery of another scale; `match` maps the values of each file.

    Raises:
        UserError: imagery is of another scale, and `on` is refuse.
    """
    findings: list[Finding] = []
    maps: dict[str, BandMaps | None] = {}
    for uri in dict.fromkeys(region.image.uri for region in regions):
        scenes = [region.image for region in regions if region.image.uri == uri]
        found = measure_range(scenes, scenes[0].profile().dtype)
        maps[uri] = None
        finding = found and compare_ranges(uri, found, spec.learnt_values, on, "data.value_range")
        if found and finding:
            findings.append(finding)
            maps[uri] = BandMaps.between(found, spec.learnt_values) if on == "match" else None
    settle(findings)
    return [replace(region, image=replace(region.image, maps=maps[region.image.uri])) for region in regions]
