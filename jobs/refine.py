"""Refined maps of scenes of any size, as cloud-optimised GeoTIFFs with the scenes' georeference.

    python jobs/refine.py --model models:/idgbr-demo@challenger --input sheets/ --output maps/
    python jobs/refine.py --model models:/idgbr-demo@challenger --input sheets/ --output maps/ --plan
    python jobs/refine.py --model MODEL --input scene.tif --coarse map.tif --output maps/ --polygons gpkg --min-area 4
    python jobs/refine.py --model MODEL --input sheets/ --output maps/ --polygons parquet --simplify 0.3 \
        --regularise building
    ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- \
        python jobs/refine.py --model models:/idgbr-demo@champion --input s3://bucket/sheets/ --output /data/maps

Adjacent sheets (same CRS, pixel size and lattice, touching) are one scene for context, and one map each. Run again it
leaves out maps that were made the same way before; what an interrupted run had finished (in OUTPUT/.refining) counts.
"""

from __future__ import annotations

from typing import Literal, NoReturn

from pydantic import Field

from idgbr.cli import JobFlags, Switch, run_job
from idgbr.config.tree import ResourcesConfig, TrackingConfig


class Flags(JobFlags):
    """Flags of refinement."""

    model: str
    """models:/NAME@ALIAS, models:/NAME/VERSION or a model folder."""
    input: list[str]
    """Files, folders or globs of imagery: local, s3:// or gs://."""
    output: str
    """Folder for the maps, or the path of the map of a single scene."""
    coarse: list[str] = []
    """Own coarse maps of class ids, one per image in the same order by name; empty: the model's stage 1."""
    aoi: str = ""
    """Vector file of polygons: maps cover their bounds, and are nodata outside of them."""
    bands: list[Literal["coarse", "probability", "uncertainty"]] = []
    """Bands beside the class ids; probability and uncertainty are 0..254 for 0..1."""
    polygons: Literal["", "gpkg", "geojson", "fgb", "parquet"] = ""
    """Polygons beside each map: GeoPackage, GeoJSON (WGS 84), FlatGeobuf or GeoParquet."""
    min_area: float = Field(0.0, ge=0, alias="min-area")
    """Smallest polygon in square metres; smaller ones join a neighbour."""
    simplify: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Polygons: metres that an edge may move by, about (pixels without a scale); 0 keeps the pixels' edges."""
    regularise: list[str] = []
    """Polygons: names of classes, such as building, whose outlines get right angles where the area stays within 2 %."""
    window_offset: list[int] = Field([0, 0], min_length=2, max_length=2, alias="window-offset")
    """Moves the windows by so many rows, columns, in steps of 32 pixels; the map should not care."""
    gsd_mismatch: Literal["refuse", "resample"] = Field("refuse", alias="gsd-mismatch")
    """What to do with imagery whose pixel size is off the model's by more than a factor 1.5."""
    bands_from: list[int | str] = Field([], alias="bands-from")
    """Bands to read in the model's order, indices or names: 1,2,3 where files name theirs differently or not at all."""
    value_range: Literal["refuse", "match", "accept"] = Field("refuse", alias="value-range")
    """What to do with imagery whose values are of another scale than the model learnt (16 bit for 8 bit): refuse it,
    map its quantiles to the model's, or read it as it is."""
    alpha: Literal["auto", "mask", "band", "ignore"] = "auto"
    """What a band tagged alpha is: validity where it looks like a mask (auto), validity, a band like others, or
    neither."""
    nodata: float | None = None
    """Overrides the files' nodata value."""
    nodata_tolerance: float = Field(0.0, ge=0, alias="nodata-tolerance")
    """Values no further than this from nodata in every band are nodata, too: margins that JPEG blurred."""
    gcps: Literal["refuse", "warp", "ignore"] = "refuse"
    """Images whose place is known by ground control points alone: refused, warped into the points' CRS, or mapped as
    they lie, without a place."""
    gsd: float | None = Field(None, gt=0)
    """Ground sample distance in metres of images that carry none."""
    max_unreadable: float = Field(0.01, ge=0, le=1, alias="max-unreadable")
    """Share of a scene's windows that may be unreadable: they become nodata and are listed in NAME.manifest.json."""
    plan: Switch = False
    """Say windows, time and disk, and do nothing."""
    fresh: Switch = False
    """Make maps again that are there."""
    tracking_uri: str = Field(TrackingConfig().uri, alias="tracking-uri")
    """MLflow store the model is looked up in."""
    address: str = ""
    """Address of a running Ray cluster; empty joins the one of the job, or starts a local one."""
    workers: int = Field(ResourcesConfig().infer_workers, ge=1)
    """Predictors that work side by side."""
    in_process_windows: int = Field(ResourcesConfig().in_process_windows, ge=0, alias="in-process-windows")
    """Up to so many windows are predicted by this process, without workers; 0: always by workers."""
    cpus_per_worker: float = Field(1.0, gt=0, alias="cpus-per-worker")
    """CPUs of each."""
    gpus_per_worker: float = Field(0.0, ge=0, alias="gpus-per-worker")
    """GPUs of each."""


def main(flags: Flags) -> dict[str, object]:
    """Refines."""
    from idgbr.distributed.mapping.refine import RefineRequest, plan, refine
    from idgbr.models.imagery import ImageOptions
    from idgbr.raster.opening import Reading
    from idgbr.raster.polygons import PolygonOptions

    request = RefineRequest(
        model=flags.model,
        input=tuple(flags.input),
        output=flags.output,
        coarse=tuple(flags.coarse),
        aoi=flags.aoi,
        bands=tuple(flags.bands),
        polygons=flags.polygons,
        outlines=PolygonOptions(flags.min_area, flags.simplify, tuple(flags.regularise)),
        offset=(flags.window_offset[0], flags.window_offset[1]),
        mismatch=flags.gsd_mismatch,
        max_unreadable=flags.max_unreadable,
        options=ImageOptions(
            tuple(flags.bands_from),
            flags.nodata,
            flags.gsd,
            Reading(flags.alpha, flags.nodata_tolerance, flags.gcps),
            flags.value_range,
        ),
        tracking_uri=flags.tracking_uri,
        fresh=flags.fresh,
    )
    resources = ResourcesConfig(
        ray_address=flags.address,
        infer_workers=flags.workers,
        in_process_windows=flags.in_process_windows,
        logical_cpus=max(4, flags.workers + 1),
        cpus_per_worker=flags.cpus_per_worker,
        gpus_per_worker=flags.gpus_per_worker,
    )
    return plan(request, resources) if flags.plan else refine(request, resources)


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, Flags, __doc__)


if __name__ == "__main__":
    run()
