"""From a data configuration to prepared regions, each prepared where there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from rich.console import Console

from idgbr.config.data import DataConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.fingerprint import fingerprint
from idgbr.datasets.label_checks import histogram_table, label_findings, reading_of_names, refuse_errors
from idgbr.datasets.normalisation import IMAGENET, Normalisation
from idgbr.datasets.prepare import PreparedRegion, prepare_region
from idgbr.datasets.splits import Region, split_regions
from idgbr.errors import IdgbrError, UserError
from idgbr.raster.values import ValueRange, measure_range

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PreparedData:
    """A data set ready for training and evaluation; `regions[i]` is what `prepared[i]` was made from."""

    regions: tuple[Region, ...]
    prepared: tuple[PreparedRegion, ...]
    normalisation: Normalisation
    """Measured on the training split."""
    fingerprint: str
    gsd: float | None
    """Ground sample distance of the training imagery in metres, the median over regions."""
    values: ValueRange | None = None
    """Values of the training imagery."""

    def split(self, name: str) -> tuple[PreparedRegion, ...]:
        """The prepared regions of a split."""
        return tuple(region for region in self.prepared if region.split == name)


def _refuse_mixed_types(regions: Sequence[Region]) -> None:
    first = regions[0].scene.image
    for image in {region.scene.image for region in regions}:
        if image.profile().dtype != first.profile().dtype:
            raise UserError(
                f"{image.uri}: pixels of type {image.profile().dtype}, but {first.uri} has "
                f"{first.profile().dtype}. A data set is normalised by common figures: convert one of them"
            )


def _normalisation(config: DataConfig, train: Sequence[PreparedRegion]) -> Normalisation:
    if config.normalisation == "measured":
        return Normalisation.from_stats(region.stats for region in train)
    for region in train:
        profile = region.image.profile()
        if profile.dtype != "uint8" or len(config.bands) != 3:
            raise UserError(
                f"{region.image.uri}: {len(config.bands)} bands of type {profile.dtype}, but data.normalisation is "
                "imagenet, which is for three 8-bit bands. Use data.normalisation measured"
            )
    return IMAGENET


def _values(train: Sequence[PreparedRegion], regions: Sequence[Region]) -> ValueRange | None:
    """Type, quantiles and colour tags of the training imagery."""
    first = regions[0].scene.image
    return measure_range([region.image for region in train], first.profile().dtype, first.colours())


def prepare_data(config: DataConfig, folder: str | Path) -> PreparedData:
    """Catalogue, split and prepare a data set; prints the class histogram and every doubt about the labels.

    Raises:
        UserError: see `catalogue`, `split_regions`, `prepare_region` and `label_findings`.
    """
    regions = tuple(split_regions(catalogue(config), config.split))
    _refuse_mixed_types(regions)
    prepared = tuple(prepare_all(regions, config, folder))
    console = Console()
    console.print(histogram_table(prepared, config.classes))
    report_labels(regions, prepared, config, console)
    train = [region for region in prepared if region.split == "train"]
    known = sorted(gsd for region in train if (gsd := region.image.resolution()) is not None)
    return PreparedData(
        regions,
        prepared,
        _normalisation(config, train),
        fingerprint(prepared),
        known[len(known) // 2] if known else None,
        _values(train, regions),
    )


def report_labels(
    regions: Sequence[Region], prepared: Sequence[PreparedRegion], config: DataConfig, console: Console
) -> None:
    """Prints every doubt about prepared labels.

    Raises:
        UserError: one of them ends the job, such as a class that never occurs in the train split.
    """
    findings = label_findings(regions, prepared, config)
    findings += reading_of_names(regions[0].scene.label, config.classes, config.label)
    for finding in findings:
        if finding.severity == "warning":
            console.print(f"warning: {finding.message()}", soft_wrap=True, highlight=False)
    refuse_errors(findings)


def prepare_all(regions: Sequence[Region], config: DataConfig, folder: str | Path) -> list[PreparedRegion]:
    """Every region prepared, in their order, as tasks all over the cluster."""
    target = str(Path(folder).resolve())
    return spread(lambda region: prepare_region(region, config, target), regions)


def spread(function: Callable[[Item], Result], items: Sequence[Item], cpus: float = 0.5) -> list[Result]:
    """`function` of every item, in order, as Ray tasks of a few items each.

    Args:
        function: anything that can be pickled.
        items: what to apply it to.
        cpus: logical CPUs of a task.

    Raises:
        IdgbrError: what the first of the items that cannot be done raised.
    """

    # As a value: of a task that raises while nobody waits for it any more, Ray would print the traceback.
    def some(part: Sequence[Item]) -> list[Result] | IdgbrError:
        try:
            return [function(item) for item in part]
        except IdgbrError as error:
            return error

    task: Any = ray.remote(num_cpus=cpus)(some)
    slots = max(1, int(ray.cluster_resources().get("CPU", 1) / cpus))
    size = max(1, min(32, len(items) // (4 * slots)))
    references = [task.remote(items[i : i + size]) for i in range(0, len(items), size)]
    results: list[Result] = []
    for reference in references:
        part = ray.get(reference)
        if isinstance(part, IdgbrError):
            raise part
        results += part
    return results
