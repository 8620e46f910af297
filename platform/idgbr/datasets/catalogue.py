"""The catalogue: every labelled scene an experiment's data configuration names, checked and sorted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idgbr.config.data import DataConfig, FolderSource, JsonlSource, PresetSource, SyntheticSource
from idgbr.datasets.jsonl import jsonl_scenes
from idgbr.datasets.labelled import (
    LabelledScene,
    check_gsd,
    make_scene,
    pair_up,
    refuse_duplicates,
    unique_ids,
    with_common_gsd,
)
from idgbr.datasets.presets import preset_scenes
from idgbr.datasets.synthetic import make_scenes
from idgbr.errors import UserError
from idgbr.raster.findings import Finding
from idgbr.raster.imagery import image_findings, settle
from idgbr.raster.listing import IMAGE_SUFFIXES, VECTOR_SUFFIXES, expand
from idgbr.raster.missing import parts_of
from idgbr.raster.scene import Scene

_LOOKED_AT = 64
"""Images of a data set whose margins are looked at."""

__all__ = ["LabelledScene", "catalogue", "check_gsd"]


def catalogue(config: DataConfig) -> list[LabelledScene]:
    """All labelled scenes of a data set, sorted by id; prints what is doubtful about their imagery.

    Raises:
        UserError: nothing found, files without partners, unreadable imagery, imagery of another scale, or an error
            among the doubts.
    """
    scenes = labelled_scenes(config)
    settle(scene_findings(scenes))
    return scenes


def labelled_scenes(config: DataConfig) -> list[LabelledScene]:
    """All labelled scenes of a data set, sorted by id, each opened once to see that it can be read.

    Raises:
        UserError: nothing found, files without partners, unreadable imagery, or imagery of another scale.
    """
    source = config.source
    if isinstance(source, FolderSource):
        scenes = _folder_scenes(source, config)
    elif isinstance(source, JsonlSource):
        scenes = jsonl_scenes(source, config)
    elif isinstance(source, PresetSource):
        scenes = preset_scenes(source, config)
    else:
        scenes = _synthetic_scenes(source, config)
    refuse_duplicates(scenes)
    for scene in scenes:
        scene.image.check()
    scenes = with_common_gsd(scenes, config)
    return sorted(scenes, key=lambda scene: scene.id)


def scene_findings(scenes: Sequence[LabelledScene]) -> list[Finding]:
    """What is doubtful about the imagery of scenes, and about label rasters of which a part is missing."""
    labels = [Scene(uri, bands=(1,)) for scene in scenes for uri in (scene.label, scene.rough) if uri]
    found = imagery_findings([scene.image for scene in scenes])
    for label in labels:
        if parts_of(label.uri).layers:  # what a virtual raster lacks would count as "no label"
            found += image_findings(label, "data.", with_pixels=False)
    return found


def imagery_findings(images: Sequence[Scene]) -> list[Finding]:
    """What is doubtful about the images of a data set; the margins of at most `_LOOKED_AT` of them are looked at."""
    looked_at = set(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(int).tolist())
    return [
        finding
        for number, image in enumerate(images)
        for finding in image_findings(image, "data.", with_pixels=number in looked_at)
    ]


def _folder_scenes(source: FolderSource, config: DataConfig) -> list[LabelledScene]:
    """Image and label files paired by name; a single label file serves all images, each where it lies."""
    if not source.labels:
        raise UserError("data.source.labels is empty: training and evaluation need labels beside the images")
    images = expand(source.images)
    labels = expand(source.labels, VECTOR_SUFFIXES if config.label.kind == "vector" else IMAGE_SUFFIXES)
    if both := sorted(set(images) & set(labels)):
        raise UserError(
            f"{both[0]}: data.source.images and data.source.labels both name it ({len(both)} such file(s)). Expected "
            "folders or patterns that tell images from labels."
        )
    shared = len(labels) == 1 and (len(images) > 1 or config.label.kind == "vector")
    pairs = [(image, labels[0]) for image in images] if shared else pair_up(images, labels, source.pair)
    ids = unique_ids([image for image, _ in pairs])
    return [
        LabelledScene(name, make_scene(image, config), label, by_place=shared and len(images) > 1)
        for name, (image, label) in zip(ids, pairs, strict=True)
    ]


def _synthetic_scenes(source: SyntheticSource, config: DataConfig) -> list[LabelledScene]:
    """Made-up scenes, painted if the folder does not hold them yet."""
    made = make_scenes(source)
    ids = unique_ids([image for image, _, _ in made])
    return [
        LabelledScene(name, make_scene(image, config), label, split)
        for name, (image, label, split) in zip(ids, made, strict=True)
    ]
