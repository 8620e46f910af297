"""A labelled scene as the catalogue knows it, and the steps every source shares: ids, pairs, ground sample distance."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from statistics import median

from idgbr.config.data import DataConfig, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.gdal import absolute
from idgbr.raster.opening import Reading
from idgbr.raster.scene import Scene

GSD_FACTOR = 1.5
"""Imagery whose ground sample distance is off by more than this factor is another scale of things."""


@dataclass(frozen=True)
class LabelledScene:
    """An image and the address of its label.

    Attributes:
        id: name, unique in the data set, fit for a file name.
        image: the imagery.
        label: label raster or vector file.
        split: train, select or test where the source says so.
        rough: raster of class ids by some other model, where the source brings one.
        by_place: the label covers more than the image, and is read where the image lies.
    """

    id: str
    image: Scene
    label: str
    split: str | None = None
    rough: str | None = None
    by_place: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", absolute(self.label))
        object.__setattr__(self, "rough", absolute(self.rough) if self.rough else None)

    def label_config(self, config: LabelConfig) -> LabelConfig:
        """How this scene's label is read: as configured, and by place where one label serves many images."""
        return config.model_copy(update={"by_place": True}) if self.by_place else config


def make_scene(uri: str, config: DataConfig) -> Scene:
    """The imagery at an address as the configuration wants it read."""
    reading = Reading(config.alpha, config.nodata_tolerance, config.gcps)
    return Scene(uri, bands=tuple(config.bands), nodata=config.nodata, reading=reading)


def unique_ids(uris: Sequence[str]) -> list[str]:
    """A file-name-safe name per address that no other address has.

    The stem, with as many parent folders as it takes to tell all apart; where no number of them does, those that are
    alike get their suffix, too, and a number where that is not enough (`a b` and `a_b`). Upper and lower case are one.
    """
    deepest = max((len(PurePosixPath(uri).parts) for uri in uris), default=1)
    for depth in range(1, deepest + 1):
        names = [_safe_name(uri, depth) for uri in uris]
        if _distinct(names, uris):
            return names
    names = [_safe_name(uri, 1) for uri in uris]
    counts = Counter(name.lower() for name in names)
    for tell_apart in (lambda uri: PurePosixPath(uri).suffix[1:], lambda uri: str(uris.index(uri) + 1)):
        longer = [f"{n}_{tell_apart(u)}" if counts[n.lower()] > 1 else n for n, u in zip(names, uris, strict=True)]
        if _distinct(longer, uris):
            break
    return longer


def _safe_name(uri: str, depth: int) -> str:
    path = PurePosixPath(uri)
    return re.sub(r"[^\w.-]+", "_", "_".join([*path.parts[:-1], path.stem][-depth:])).strip("_") or "image"


def _distinct(names: Sequence[str], uris: Sequence[str]) -> bool:
    return len({name.lower() for name in names}) == len(set(uris))


def pair_up(images: Sequence[str], labels: Sequence[str], pattern: str) -> list[tuple[str, str]]:
    """Images with their labels, by the first group of `pattern` searched in both stems.

    Raises:
        UserError: a file without a partner, two files with the same key, or a pattern that matches nothing.
    """
    by_key = _by_key(labels, pattern, "label")
    of_image = _by_key(images, pattern, "image")
    lonely = [f"image {of_image[key]} (no label with key '{key}')" for key in sorted(of_image.keys() - by_key.keys())]
    lonely += [f"label {by_key[key]} (no image with key '{key}')" for key in sorted(by_key.keys() - of_image.keys())]
    if lonely:
        shown = "\n  ".join(lonely[:10])
        more = f"\n  and {len(lonely) - 10} more" if len(lonely) > 10 else ""
        raise UserError(
            f"{len(lonely)} file(s) without a partner among {len(images)} images and {len(labels)} labels, paired by "
            f"'{pattern}' (data.source.pair):\n  {shown}{more}"
        )
    return [(of_image[key], by_key[key]) for key in sorted(of_image)]


def _by_key(uris: Sequence[str], pattern: str, what: str) -> dict[str, str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.source.pair is no regular expression: '{pattern}' ({error})") from None
    if expression.groups < 1:
        raise UserError(f"data.source.pair '{pattern}' has no group: put the part that must agree in ( )")
    keys: dict[str, str] = {}
    for uri in uris:
        # macOS writes letters such as ö as two characters.
        match = expression.search(unicodedata.normalize("NFC", PurePosixPath(uri).stem))
        if match is None or match.group(1) is None:
            raise UserError(f"{what} {uri}: its name does not match '{pattern}' (data.source.pair)")
        if match.group(1) in keys:
            raise UserError(
                f"two {what}s with the same key '{match.group(1)}': {keys[match.group(1)]} and {uri}; "
                "make data.source.pair tell them apart"
            )
        keys[match.group(1)] = uri
    return keys


def check_gsd(scene_gsd: float | None, model_gsd: float | None, config: DataConfig, what: str) -> float | None:
    """Whether imagery fits the scale a model knows.

    Args:
        scene_gsd: metres per pixel of the imagery; None when unknown.
        model_gsd: metres per pixel the model was, or is to be, trained on; None when unknown.
        config: `gsd_mismatch` decides what happens.
        what: the imagery's name for the message.

    Returns:
        The ground sample distance to resample the imagery to, or None to read it as it is.

    Raises:
        UserError: off by more than a factor 1.5 and `gsd_mismatch` is refuse.
    """
    if scene_gsd is None or model_gsd is None:
        return None
    if 1 / GSD_FACTOR <= scene_gsd / model_gsd <= GSD_FACTOR:
        return None
    if config.gsd_mismatch == "resample":
        return model_gsd
    raise UserError(
        f"{what}: ground sample distance {scene_gsd:.3g} m, expected about {model_gsd:.3g} m (within a factor "
        f"{GSD_FACTOR}); set data.gsd_mismatch: resample to read it at {model_gsd:.3g} m"
    )


def with_common_gsd(scenes: list[LabelledScene], config: DataConfig) -> list[LabelledScene]:
    """The scenes with `data.gsd` where their files carry none, resampled or refused where they are off.

    The scale of the data set is `data.gsd`, or else the median of the files'.
    """
    found = [scene.image.grid().gsd for scene in scenes]
    known = [gsd for gsd in found if gsd is not None]
    expected = config.gsd if config.gsd is not None else (median(known) if known else None)
    out = []
    for scene, gsd in zip(scenes, found, strict=True):
        image = scene.image
        if gsd is None:
            image = replace(image, gsd=config.gsd)
        else:
            image = replace(image, resample_to=check_gsd(gsd, expected, config, image.uri))
        out.append(replace(scene, image=image))
    return out


def refuse_duplicates(scenes: Sequence[LabelledScene]) -> None:
    """Raises UserError when an image appears twice: the same pixels could end up in two splits."""
    files = {scene.image.uri: os.path.realpath(scene.image.uri) for scene in scenes}  # a link is the same pixels
    for uri, count in Counter(files[scene.image.uri] for scene in scenes).items():
        if count > 1:
            splits = sorted({scene.split or "no split" for scene in scenes if files[scene.image.uri] == uri})
            raise UserError(f"{uri} is listed {count} times ({', '.join(splits)}); splits must share no pixel")
