"""Refining scenes of any size: coarse maps, refined maps, polygons."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping.coarse_maps import predictor_for
from idgbr.distributed.mapping.scenes import fits_here, predict_scenes
from idgbr.distributed.mapping.sheets import Sheets, find_sheets
from idgbr.distributed.mapping.sinks import CoarseSink, ExtraBand, map_sink
from idgbr.distributed.mapping.tasks import SceneTask
from idgbr.distributed.mapping.unreadable import Unreadable, write_manifest
from idgbr.distributed.session import start_ray
from idgbr.errors import UserError
from idgbr.files import hash_text
from idgbr.inference.min_region import min_pixels
from idgbr.models.description import ModelSpec, load_spec
from idgbr.models.imagery import AS_LEARNT, ImageOptions
from idgbr.raster.degrees import without_degrees
from idgbr.raster.gdal import open_quietly
from idgbr.raster.grid import Window
from idgbr.raster.missing import parts_of
from idgbr.raster.polygons import AS_PIXELS, Classes, PolygonOptions, polygonise
from idgbr.raster.scene import Scene
from idgbr.raster.styles import write_style
from idgbr.raster.windows import plan_windows
from idgbr.registry.versions import resolve

KEY_TAG = "idgbr_key"
"""Tag that says what a map was made from and how; the same key again needs no work."""


@dataclass(frozen=True)
class RefineRequest:
    """What to refine, and how."""

    model: str
    input: tuple[str, ...]
    output: str
    coarse: tuple[str, ...] = ()
    aoi: str = ""
    bands: tuple[ExtraBand, ...] = ()
    polygons: Literal["", "gpkg", "geojson", "fgb", "parquet"] = ""
    outlines: PolygonOptions = AS_PIXELS
    offset: tuple[int, int] = (0, 0)
    mismatch: Literal["refuse", "resample"] = "refuse"
    max_unreadable: float = 0.01
    """Share of a scene's windows that may be unreadable, and become nodata."""
    options: ImageOptions = AS_LEARNT
    """What is said about the imagery."""
    tracking_uri: str = ""
    fresh: bool = False

    @property
    def work(self) -> Path:
        """Folder of what an interrupted job keeps."""
        out = Path(self.output)
        return (out.parent if out.suffix else out).resolve() / ".refining"


@dataclass(frozen=True)
class _Work:
    """Where one scene's work is kept until all its maps are made: a folder named by what they are made from."""

    folder: Path
    max_unreadable: float

    @property
    def coarse(self) -> Path:
        return self.folder / "coarse.tif"

    def passes(self) -> tuple[Unreadable, Unreadable]:
        """Notes of unreadable windows of the coarse and the refined pass."""
        names = ("coarse.jsonl", "refined.jsonl")
        first, second = (Unreadable(str(self.folder / name), self.max_unreadable) for name in names)
        return first, second


def plan(request: RefineRequest, resources: ResourcesConfig) -> dict[str, object]:
    """Say how many windows there are, how long they take here and what they need on disk, and do nothing.

    The time follows from one batch of windows predicted in this process.
    """
    folder, label, spec = _model(request)
    sheets = _sheets(request, spec)
    seconds = _seconds_a_window(folder, spec, sheets[0], bool(request.coarse)) / max(1, resources.infer_workers)
    table = Table(title=f"Plan, {label}")
    for heading in ("scene", "pixels", "windows", "minutes", "disk (MB)"):
        table.add_column(heading, justify="left" if heading == "scene" else "right")
    total = {"windows": 0, "minutes": 0.0, "megabytes": 0.0}
    for sheet in sheets:
        grid = sheet.image.grid()
        cut = spec.inference.refiner
        count = len(plan_windows(grid.height, grid.width, cut.window, cut.overlap, request.offset))
        sieved = bool(min_pixels(spec.sampler, spec.classes, spec.gsd))
        planes = 1 + len(request.bands) + (0 if request.coarse else 1 + len(spec.classes))
        planes += 2 + len(spec.classes) if sieved else 0
        # The raw rows and their compressed copy exist side by side for a moment.
        megabytes = 1.5 * planes * grid.height * grid.width / 2**20
        minutes = count * seconds / 60
        table.add_row(sheet.name, f"{grid.width} x {grid.height}", f"{count:,}", f"{minutes:.1f}", f"{megabytes:,.0f}")
        total = {
            "windows": total["windows"] + count,
            "minutes": total["minutes"] + minutes,
            "megabytes": total["megabytes"] + megabytes,
        }
    Console().print(table)
    Console().print(
        f"{total['windows']:,} windows, {total['minutes']:.1f} minutes, {total['megabytes']:,.0f} MB at most"
    )
    return {"plan": total}


def refine(request: RefineRequest, resources: ResourcesConfig) -> dict[str, object]:
    """Refine every scene; maps (and polygons) that are there already, made the same way, stay.

    A job that was interrupted goes on after the rows that it had finished. Windows that cannot be read become nodata,
    and are listed in NAME.manifest.json beside the map.

    Returns:
        Paths of maps and polygons.

    Raises:
        UserError: bad input; more windows of a scene cannot be read than may be.
    """
    began = time.monotonic()
    folder, label, spec = _model(request)
    sheets = _sheets(request, spec)
    keys = {sheet.name: _key(request, folder, sheet) for sheet in sheets}
    works = {name: _Work(request.work / f"{name}-{key}", request.max_unreadable) for name, key in keys.items()}
    todo = [s for s in sheets if request.fresh or any(_made_with(path) != keys[s.name] for path, _ in s.outputs)]
    if todo:
        for sheet in todo:
            if request.fresh:
                shutil.rmtree(works[sheet.name].folder, ignore_errors=True)
            works[sheet.name].folder.mkdir(parents=True, exist_ok=True)
        with nullcontext() if fits_here(_longest_pass(todo, request, spec), resources) else start_ray(resources):
            _maps(todo, keys, works, request, folder, label, spec, resources)
    unread = sum(_settle(sheet, works[sheet.name]) for sheet in sheets)
    with suppress(OSError):  # another job's work may be there
        request.work.rmdir()
    maps = [path for sheet in sheets for path, _ in sheet.outputs]
    classes = [(i, c.name, c.colour) for i, c in enumerate(spec.classes)]
    for path in maps:
        write_style(path, classes)
    polygons = _polygons(maps, request, classes) if request.polygons else []
    console = Console(soft_wrap=True)
    if unread:
        console.print(f"warning: {unread} window(s) could not be read and are nodata; see *.manifest.json")
    made = sum(len(sheet.outputs) for sheet in todo)
    console.print(
        f"{made} map(s) in {time.monotonic() - began:.0f} s, {len(maps) - made} there before: {request.output}",
        highlight=False,
    )
    return {"model": label, "maps": maps, "unreadable": unread, **({"polygons": polygons} if polygons else {})}


def _longest_pass(sheets: Sequence[Sheets], request: RefineRequest, spec: ModelSpec) -> int:
    """Windows of the pass that has more of them."""
    grids = [sheet.image.grid() for sheet in sheets]
    return max(
        sum(len(plan_windows(grid.height, grid.width, cut.window, cut.overlap, request.offset)) for grid in grids)
        for cut in (spec.inference.coarse, spec.inference.refiner)
    )


def _maps(
    sheets: Sequence[Sheets],
    keys: dict[str, str],
    works: dict[str, _Work],
    request: RefineRequest,
    folder: Path,
    label: str,
    spec: ModelSpec,
    resources: ResourcesConfig,
) -> None:
    """Two passes, so that a refined window sees the blended coarse map, as in training and evaluation."""
    inference, classes, offset = spec.inference, spec.classes, request.offset
    first = []
    for sheet in sheets:
        work = works[sheet.name]
        if sheet.coarse is None and not work.coarse.exists():
            sink = functools.partial(
                CoarseSink, work.coarse, sheet.image.grid(), classes, work=str(work.folder / "coarse")
            )
            first.append(SceneTask(sheet.name, sheet.image, sink, unreadable=work.passes()[0]))
    predictor = predictor_for(folder, "coarse", inference, resources)
    predict_scenes(first, predictor, len(classes), inference.coarse, resources, offset=offset, title="coarse maps")
    second = [_refinement(sheet, works[sheet.name], keys[sheet.name], request, label, spec) for sheet in sheets]
    predictor = predictor_for(folder, "refiner", inference, resources, samplers=(spec.sampler,))
    predict_scenes(
        second, predictor, len(classes) + 1, inference.refiner, resources, offset=offset, title="refined maps"
    )


def _refinement(sheet: Sheets, work: _Work, key: str, request: RefineRequest, label: str, spec: ModelSpec) -> SceneTask:
    coarse = sheet.coarse or Scene(str(work.coarse))
    sink = functools.partial(
        map_sink,
        sheet.outputs,
        sheet.image.grid(),
        spec.classes,
        request.bands,
        minimum=min_pixels(spec.sampler, spec.classes, spec.gsd),
        coarse=coarse,
        aoi=request.aoi,
        tags={"model": label, KEY_TAG: key},
        work=str(work.folder / "maps"),
    )
    return SceneTask(sheet.name, sheet.image, sink, coarse, sheet.image.origin, unreadable=work.passes()[1])


def _settle(sheet: Sheets, work: _Work) -> int:
    """Once all maps of a scene are made: list what was unreadable, and forget its work."""
    if not work.folder.exists():
        return 0
    passes = work.passes()
    count = sum(write_manifest(Path(path), extent, passes) for path, extent in sheet.outputs)
    shutil.rmtree(work.folder)
    return count


def _model(request: RefineRequest) -> tuple[Path, str, ModelSpec]:
    folder, label = resolve(request.model, request.tracking_uri)
    spec = load_spec(folder)
    request.outlines.ids([(i, c.name, c.colour) for i, c in enumerate(spec.classes)])
    if spec.refiner is None:
        raise UserError(f"{request.model}: has no stage 2; expected a model that jobs/train.py registered")
    if spec.coarse is None and not request.coarse:
        raise UserError(f"{request.model}: has no stage 1; give a coarse map with --coarse")
    return folder, label, spec


def _sheets(request: RefineRequest, spec: ModelSpec) -> list[Sheets]:
    where = request.input, request.output, spec, request.mismatch, request.coarse, request.aoi
    sheets = find_sheets(*where, request.options, request.max_unreadable)
    for sheet in sheets if request.polygons == "geojson" else []:
        if found := without_degrees(sheet.image.grid()):
            raise UserError(f"{sheet.name}: {found}; use --polygons gpkg, or correct the georeference")
    return sheets


def _seconds_a_window(folder: Path, spec: ModelSpec, sheet: Sheets, has_coarse: bool) -> float:
    """Time of a window of stage 2, and of stage 1 on as many pixels, measured on one batch of each."""
    from idgbr.inference.predictor import Predictor  # seconds to import, and only a plan needs it here

    predictor = Predictor(folder)
    cut = spec.inference.refiner
    image, valid = _middle(sheet, cut.window, cut.batch)
    ids = np.zeros((len(image), cut.window, cut.window), np.uint8)
    started = time.monotonic()
    predictor.refine(image, valid, ids, np.zeros((len(image), 2), np.int64))
    seconds = (time.monotonic() - started) / len(image)
    if has_coarse:
        return seconds
    first = spec.inference.coarse
    image, valid = _middle(sheet, first.window, first.batch)
    started = time.monotonic()
    predictor.coarse(image, valid)
    per_stride = (time.monotonic() - started) / len(image) / (first.window - first.overlap) ** 2
    return seconds + per_stride * (cut.window - cut.overlap) ** 2


def _middle(sheet: Sheets, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    grid = sheet.image.grid()
    extent = Window((grid.height - size) // 2, (grid.width - size) // 2, size, size)
    image, valid = sheet.image.read(extent)
    return np.stack([image] * count), np.stack([valid] * count)


def _key(request: RefineRequest, folder: Path, sheet: Sheets) -> str:
    """What a map depends on: the model's weights, the files, and the request."""
    sources = [*_uris(sheet.image), *_uris(sheet.coarse), *([request.aoi] if request.aoi else [])]
    sources += [part for uri in sources for part in parts_of(uri).files]
    stats = [(uri, os.stat(uri).st_size, os.stat(uri).st_mtime_ns) if os.path.exists(uri) else uri for uri in sources]
    weights = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()]
    asked = {k: v for k, v in asdict(request).items() if k in ("bands", "offset", "mismatch")}
    return hash_text(json.dumps([stats, weights, asked, repr(sheet.image)]))


def _uris(source: object) -> list[str]:
    if source is None:
        return []
    sheets = getattr(source, "sheets", None)
    return [scene.uri for scene, _ in sheets] if sheets is not None else [source.uri]  # type: ignore[attr-defined]


def _made_with(path: str) -> str:
    if not os.path.exists(path):
        return ""
    with open_quietly(path) as dataset:
        return str(dataset.tags().get(KEY_TAG, ""))


def _polygons(maps: Sequence[str], request: RefineRequest, classes: Classes) -> list[str]:
    targets = [str(Path(path).with_suffix(f".{request.polygons}")) for path in maps]
    for path, target in zip(maps, targets, strict=True):
        polygonise(path, target, classes, request.outlines)
    return targets
