"""A look at imagery and labels before anything runs, and the data section that reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from idgbr.config.data import DataConfig, SplitConfig
from idgbr.datasets.catalogue import imagery_findings, labelled_scenes, scene_findings
from idgbr.datasets.image_survey import ImageSurvey, common_bands, image_table, sampled, set_findings, survey_image
from idgbr.datasets.label_checks import MAX_SURVEYED
from idgbr.datasets.label_proposal import Proposal, propose_raster, propose_vector
from idgbr.datasets.labelled import GSD_FACTOR, LabelledScene, pair_up
from idgbr.datasets.pairing import PLAIN, pair_pattern
from idgbr.datasets.places import places_of, shared_ground, split_by_place
from idgbr.datasets.splits import SPLITS, Region, split_regions
from idgbr.errors import UserError
from idgbr.raster.findings import Finding
from idgbr.raster.grid import Window
from idgbr.raster.label_survey import label_header, shares, survey_label
from idgbr.raster.labels import label_reader
from idgbr.raster.listing import IMAGE_SUFFIXES, VECTOR_SUFFIXES, expand, is_vector
from idgbr.raster.scene import Scene
from idgbr.raster.vectors import attribute_values, polygon_layers

_BLOCKS = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32)
_FEW_BLOCKS = 16
"""Smallest recommended number of blocks for a split by blocks."""
_FEW_FILES = 10
"""Number of images from which whole files are assigned to splits."""
_SELECT, _TEST = 0.15, 0.25
_SEEDS = 20
_ROWS = 256


@dataclass(frozen=True)
class Inspection:
    """What was found, and the data section that was made of it.

    Attributes:
        images: those of the images that were looked at, of many a regular sample.
        files: how many images there are.
        labels: the label files.
        proposal: how they can be read; None without any.
        data: the section, complete where there are labels.
        findings: what is doubtful.
    """

    images: list[ImageSurvey]
    files: int
    labels: list[str]
    proposal: Proposal | None
    data: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        looked_at = sum(one.profile.height * one.profile.width for one in self.images)
        return round(looked_at * self.files / len(self.images))

    def tables(self) -> list[Table]:
        """What the files are, and what the labels hold."""
        return [image_table(self.images, self.files), *([_label_table(self.labels)] if self.labels else [])]


def inspect_data(images: Sequence[str], labels: Sequence[str], name: str) -> Inspection:
    """Looks at images and labels.

    Args:
        images: files, folders or globs.
        labels: likewise, rasters or vector files; empty: images alone are looked at.
        name: of the data set.

    Raises:
        UserError: nothing is found, or a file cannot be read.
    """
    uris = expand(images)
    surveys = [survey_image(uri) for uri in _sample(uris)]
    found = set_findings(surveys)
    alone = [Scene(one.uri) for one in surveys]
    data: dict[str, Any] = {"name": name, "source": {"kind": "folder", "images": [os.path.abspath(p) for p in images]}}
    if not labels:
        return Inspection(surveys, len(uris), [], None, data, found + imagery_findings(alone))
    files = expand(labels, (*IMAGE_SUFFIXES, *VECTOR_SUFFIXES))
    vector = is_vector(files[0])
    mixed = [uri for uri in files if is_vector(uri) != vector]
    if mixed:
        raise UserError(
            f"labels: {files[0]} and {mixed[0]} are of two kinds. Expected rasters or vector files; name the ones to "
            "learn from with a pattern in quotes, such as --labels 'folder/*.tif'"
        )
    proposal = propose_vector(files) if vector else propose_raster([survey_label(uri) for uri in _sample(files)])
    found += proposal.findings
    data["source"]["labels"] = [os.path.abspath(p) for p in labels]
    label = dict(proposal.label)
    if len(files) > 1 or (len(uris) == 1 and not vector):
        pattern, lonely = pair_pattern(uris, files)
        found += _lonely(lonely, uris, files)
        if pattern != PLAIN:
            data["source"]["pair"] = pattern
        if not vector and (slack := _slack(uris, files, pattern)):
            label["size_slack"] = slack
            sentence = f"label files are up to {slack} px larger or smaller than their images"
            advice = "upper left corners are laid on each other"
            found.append(Finding(files[0], sentence, "data.label.size_slack", advice, "warning"))
    data |= {"classes": proposal.classes, "label": label, "bands": common_bands(surveys)}
    if all(one.gsd is None for one in surveys) and not vector and (gsd := Scene(files[0]).grid().gsd):
        spread = [g for uri in _sample(files) if (g := Scene(uri).grid().gsd)]
        if max(spread) <= GSD_FACTOR * min(spread):
            data["gsd"] = float(f"{gsd:.3g}")
    known = [one.gsd for one in surveys if one.gsd is not None]
    if known and max(known) > GSD_FACTOR * min(known):
        data["gsd_mismatch"] = "resample"
    if len(proposal.classes) < 2:
        sentence = f"only one class was found ({proposal.why})"
        found.append(Finding(files[0], sentence, "data.classes", "labels of two classes or more are needed", "error"))
    if _has_error(found):
        return Inspection(surveys, len(uris), files, proposal, data, found + imagery_findings(alone))
    scenes = labelled_scenes(DataConfig.model_validate(data))
    found += scene_findings(scenes)
    if not _has_error(found):
        places = range(len(scenes)) if vector else places_of(scenes)
        data["split"], doubts = _split(data, scenes, places, surveys)
        found += doubts
    return Inspection(surveys, len(uris), files, proposal, data, found)


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _split(
    data: dict[str, Any], scenes: Sequence[LabelledScene], places: Sequence[int], surveys: Sequence[ImageSurvey]
) -> tuple[dict[str, Any], list[Finding]]:
    """A split in which every class occurs everywhere: by places where images share ground, else by files or blocks."""
    config = DataConfig.model_validate(data)
    names, several = {PurePosixPath(scene.image.uri).name for scene in scenes}, len(set(places))
    doubts = shared_ground(scenes, places)
    if doubts and several >= _FEW_FILES and len(names) == len(scenes):
        dealt = [split_by_place(scenes, places, _SELECT, _TEST, seed) for seed in range(_SEEDS)]
        if complete := [split for split in dealt if all(split["regions"].values())]:
            split, more = _first_complete(config, scenes, complete)
            return split, [replace(doubts[0], advice="each place was assigned to one split"), *more]
    options: list[dict[str, Any]] = [{"by": "fraction"}] if several >= _FEW_FILES else []
    sizes = [(one.profile.height, one.profile.width) for one in surveys]
    block = next((b for b in _BLOCKS if sum((h // b) * (w // b) for h, w in sizes) >= _FEW_BLOCKS), _BLOCKS[-1])
    options.append({"by": "block", "block": block})
    shares = {"select": _SELECT, "test": _TEST}
    seeded = [{**option, **shares, **({"seed": seed} if seed else {})} for option in options for seed in range(_SEEDS)]
    split, more = _first_complete(config, scenes, seeded)
    return split, [*doubts, *more]


def _first_complete(
    config: DataConfig, scenes: Sequence[LabelledScene], options: Iterable[dict[str, Any]]
) -> tuple[dict[str, Any], list[Finding]]:
    """The first split in which every class occurs everywhere, or else the one that lacks least, and a warning."""
    cells = _Presence(config)
    best: tuple[int, dict[str, Any]] | None = None
    for option in options:
        score = cells.absent(split_regions(scenes, SplitConfig.model_validate(option)))
        if best is None or score < best[0]:
            best = (score, option)
        if not score:
            return option, []
    assert best is not None
    sentence = "some class occurs in too few places to be in every split"
    advice = "take more imagery with it, or merge it with another class"
    return best[1], [Finding(scenes[0].label, sentence, "data.label.allow_missing", advice, "warning")]


class _Presence:
    """Which classes occur where: one map of class ids by scene, on every few pixels."""

    def __init__(self, config: DataConfig) -> None:
        self.config, self.maps = config, {}  # type: ignore[var-annotated]

    def absent(self, regions: Sequence[Region]) -> int:
        """In how many splits some class does not occur, those of train first."""
        seen = {split: np.zeros(len(self.config.classes), bool) for split in SPLITS}
        for region in regions:
            ids, step = self._of(region)
            w = region.window
            part = ids[w.row // step : -(-w.stop_row // step), w.col // step : -(-w.stop_col // step)]
            seen[region.split] |= np.bincount(part.ravel(), minlength=256)[: len(self.config.classes)] > 0
        return sum(int((~seen[s]).sum()) * (10 if s == "train" else 1) for s in SPLITS)

    def _of(self, region: Region) -> tuple[np.ndarray, int]:
        scene = region.scene
        if scene.id not in self.maps:
            grid = scene.image.grid()
            reader = label_reader(scene.label, scene.image, self.config.classes, scene.label_config(self.config.label))
            step = max(1, int(np.sqrt(grid.height * grid.width / 2**20)))
            rows = [
                reader.explain(Window(top, 0, min(_ROWS * step, grid.height - top), grid.width))[0][::step, ::step]
                for top in range(0, grid.height, _ROWS * step)
            ]
            self.maps[scene.id] = (np.concatenate(rows), step)
        found: tuple[np.ndarray, int] = self.maps[scene.id]
        return found


def _slack(images: Sequence[str], labels: Sequence[str], pattern: str) -> int:
    """By how many pixels labels without a place differ from their images at most; 0 where a place is known."""
    try:
        pairs = pair_up(images, labels, pattern)
    except UserError:
        return 0
    most = 0
    for image, label in pairs:
        ours, theirs = Scene(image).grid(), Scene(label).grid()
        off = max(abs(ours.height - theirs.height), abs(ours.width - theirs.width))
        same_place = not ours.same_as(replace(theirs, height=ours.height, width=ours.width))
        most = max(most, off if same_place and off <= 4 else 0)
    return most


def _lonely(lonely: Sequence[str], images: Sequence[str], labels: Sequence[str]) -> list[Finding]:
    if not lonely:
        return []
    shown = ", ".join(PurePosixPath(uri).name for uri in lonely[:5]) + (", ..." if len(lonely) > 5 else "")
    sentence = f"{len(lonely)} of {len(images)} images and {len(labels)} labels have no partner by name: {shown}"
    advice = "name files that pair, or give the part of the names that they share as a regular expression"
    return [Finding(lonely[0], sentence, "data.source.pair", advice, "error")]


def _label_table(files: Sequence[str]) -> Table:
    vector = is_vector(files[0])
    looked_at = len(files) if vector else len(_sample(files))
    table = Table(title="Labels" + sampled(looked_at, len(files)), box=box.SIMPLE)
    for heading in ("files", "first", "format", "holds"):
        table.add_column(heading, overflow="fold")
    first = PurePosixPath(files[0]).name
    if vector:
        layers = polygon_layers(files[0])
        for layer in layers:
            held = attribute_values(files[0], layer if len(layers) > 1 else "")
            listed = [f"{name}: {shares(values, 5)}" for name, values in held.items() if len(values) <= 30]
            table.add_row(str(len(files)), first, f"layer {layer}", "; ".join(listed) or "polygons without attributes")
        return table
    groups: dict[tuple[str, str], list[str]] = {}
    for uri in _sample(files):
        header = label_header(uri)
        tag = "" if header.nodata is None else f", nodata {header.nodata:g}"
        colours = ", palette" if header.palette else ""
        groups.setdefault((header.driver, f"{header.bands} band(s) {header.dtype}{colours}{tag}"), []).append(uri)
    for (driver, words), uris in groups.items():
        values: dict[Any, int] = {}
        for survey in map(survey_label, uris):
            for value, count in (
                survey.values if survey.alike and not survey.header.palette else survey.colours
            ).items():
                values[value] = values.get(value, 0) + count
        table.add_row(str(len(uris)), PurePosixPath(uris[0]).name, f"{driver}, {words}", shares(values, 12))
    return table


def _sample(files: Sequence[str]) -> list[str]:
    """At most `MAX_SURVEYED` of the files, evenly spread."""
    chosen = sorted(set(np.linspace(0, len(files) - 1, min(len(files), MAX_SURVEYED)).astype(int)))
    return [files[i] for i in chosen]
