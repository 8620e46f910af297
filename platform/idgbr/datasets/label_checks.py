"""Doubts about labels: classes that never occur, pixels that carry no label, and the key that settles each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from idgbr.config.data import ClassSpec, DataConfig, LabelConfig
from idgbr.datasets.prepare import PreparedRegion
from idgbr.datasets.splits import SPLITS, Region
from idgbr.errors import UserError
from idgbr.raster.findings import Finding
from idgbr.raster.label_rasters import HIDDEN, OUTSIDE
from idgbr.raster.label_survey import label_header, merged, shares, survey_label
from idgbr.raster.labels import APART
from idgbr.raster.vectors import attribute_values

MAX_SURVEYED = 200
"""Label files whose values are counted for a message; of more, a regular sample."""


def label_findings(regions: Sequence[Region], prepared: Sequence[PreparedRegion], config: DataConfig) -> list[Finding]:
    """What is doubtful about prepared labels.

    Args:
        regions: what the data set consists of.
        prepared: the same, prepared, in the same order.
        config: classes and how labels are stored.
    """
    learnt = [region for region in regions if region.split == "train"] or regions
    labels = sorted({region.scene.label for region in learnt})
    notes = _notes(labels, prepared)
    if any(finding.severity == "error" for finding in notes):  # then every class is absent for that reason
        return notes
    return [*_absent_from_train(labels, prepared, config), *_absent_elsewhere(labels, prepared, config), *notes]


def _absent_from_train(labels: Sequence[str], prepared: Sequence[PreparedRegion], config: DataConfig) -> list[Finding]:
    if not any(region.split == "train" for region in prepared):  # the scenes of a gate
        return []
    train, every = _counts(prepared, "train"), np.sum([p.histogram for p in prepared], axis=0)
    absent = [k for k in np.flatnonzero(train == 0) if config.classes[k].name not in config.label.allow_missing]
    if not absent:
        return []
    names = ", ".join(f"{config.classes[k].name} (id {k})" for k in absent)
    classes = f"class {names} never occurs" if len(absent) == 1 else f"classes {names} never occur"
    allowed = "[" + ", ".join(config.classes[k].name for k in absent) + "]"
    if all(every[k] for k in absent):
        return [
            Finding(
                _named(labels), f"{classes} in the train split, but in another one", "data.split",
                f"let it pass with data.label.allow_missing: {allowed}, or deal the scenes otherwise: another seed, "
                "smaller blocks", "error",
            )
        ]  # fmt: skip
    held, key, advice = _reading(labels, [int(k) for k in absent], config)
    return [
        Finding(
            _named(labels), f"{classes} in the train split; the labels hold {held}", key,
            f"unless it is really that rare (data.label.allow_missing: {allowed}), {advice}", "error",
        )
    ]  # fmt: skip


def _absent_elsewhere(labels: Sequence[str], prepared: Sequence[PreparedRegion], config: DataConfig) -> list[Finding]:
    every, found = np.sum([p.histogram for p in prepared], axis=0), []
    for split in ("select", "test"):
        if any(region.split == split for region in prepared):
            counts = _counts(prepared, split)
            absent = [c.name for c, own, all_ in zip(config.classes, counts, every, strict=True) if all_ and not own]
            if absent:
                sentence = f"{', '.join(absent)} never occurs in the {split} split, whose figures say nothing of it"
                found.append(Finding(_named(labels), sentence, "data.split", "deal the scenes otherwise", "warning"))
    return found


def _notes(labels: Sequence[str], prepared: Sequence[PreparedRegion]) -> list[Finding]:
    """What became of valid pixels that carry no label, or not the class of their value."""
    total = max(1, sum(region.valid_pixels for region in prepared))
    counts: dict[str, int] = {}
    for region in prepared:
        for note, count in region.notes:
            counts[note] = counts.get(note, 0) + count
    found = []
    for note, count in sorted(counts.items(), key=lambda item: -item[1]):
        sentence = f"{count:,} of {total:,} valid pixels ({count / total:.2%}): {note}"
        if note in (OUTSIDE, APART) and count == total:
            advice = "no image lies on its label; check both georeferences (a GIS shows both)"
            found.append(Finding(_named(labels), sentence, "", advice, "error"))
        else:
            found.append(Finding(_named(labels), sentence, "", "", "warning"))
    return found


def _reading(labels: Sequence[str], absent: Sequence[int], config: DataConfig) -> tuple[str, str, str]:
    """What label files hold in words, the key that would read it, and what to do."""
    label = config.label
    step = max(1, len(labels) // MAX_SURVEYED)
    if label.kind == "vector":
        return _reading_of_polygons(labels[::step], label)
    surveys = list(map(survey_label, labels[::step]))
    values, colours = merged(surveys)
    tags = {label_header(uri).nodata for uri in labels[::step]} - {None}
    tagged = sorted(tag for tag in tags if tag in absent and label.kind == "index")  # type: ignore[type-var]
    if not tagged and (hidden := float(np.mean([survey.hidden for survey in surveys]))):
        held = f"{shares(colours if label.kind == 'colour' else values)}, and {hidden:.1%} is {HIDDEN}: no label"
        if len(config.classes) == 2 and list(absent) == [0]:
            advice = "set it to true, with data.label.kind index, so that what is hidden becomes class 0"
            return held, "data.label.nonzero", advice
    if label.kind == "colour":
        ignored = {colour.lower() for colour in label.ignore_colours} & set(colours)
        key = "data.label.ignore_colours" if ignored else "data.classes"
        return shares(colours), key, "give every class its colour in the labels"
    if tagged:
        mapping = "{" + ", ".join(f"{k}: {k}" for k in range(len(config.classes))) + "}"
        held = f"{shares(values)}, and {tagged[0]:g} is the files' nodata tag, which carries no label"
        return held, "data.label.values", f"set it to {mapping}, so that the value counts as a class all the same"
    others = [value for value in values if value != 0]
    if label.threshold is not None:
        return shares(values), "data.label.threshold", "set it between the values of the two classes, or leave it out"
    if read := [value for value in values if _id_of(value, label) in absent]:
        held = f"{shares(values)}, of which {', '.join(f'{value:g}' for value in read)} is read as this class"
        return held, "data.nodata", "look whether the imagery is nodata there, or in no split"
    if len(config.classes) == 2 and 0 in values and len(others) == 1 and not label.values:
        ignored_words = ", which data.label.ignore leaves without a label" if others[0] in label.ignore else ""
        held = f"{shares(values)}: a mask of two values{ignored_words}"
        return held, "data.label.nonzero", "set it to true, so that any value but 0 is class 1"
    if ignored_values := sorted(int(v) for v in others if v in label.ignore):
        held = f"{shares(values)}, of which {', '.join(map(str, ignored_values))} carries no label"
        return held, "data.label.ignore", "take it out there, or map values to ids with data.label.values"
    return shares(values), "data.label.values", "map the values to ids of classes"


def _id_of(value: float, label: LabelConfig) -> float | None:
    """The class id that a value of an index raster is read as; None where it is none."""
    if label.nonzero:
        return float(value != 0)
    if label.values:
        return label.values.get(int(value)) if float(value).is_integer() else None
    return None if value in label.ignore else value


def _reading_of_polygons(labels: Sequence[str], label: LabelConfig) -> tuple[str, str, str]:
    held: dict[str, dict[str, int]] = {}
    for uri in labels:
        for attribute, values in attribute_values(uri, label.layer).items():
            known = held.setdefault(attribute, {})
            for value, count in values.items():
                known[value] = known.get(value, 0) + count
    if label.attribute:
        return f"{label.attribute}: {shares(held.get(label.attribute, {}))}", "data.label.values", "map them to ids"
    listed = [f"{name}: {shares(values, 4)}" for name, values in held.items() if len(values) <= 20]
    words = "; ".join(listed) or "none that tells classes apart"
    return f"polygons with the attributes {words}", "data.label.attribute", "name the attribute that holds the class"


def reading_of_names(uri: str, classes: Sequence[ClassSpec], label: LabelConfig) -> list[Finding]:
    """A warning where polygons are all burnt as one class though an attribute of theirs names several."""
    if label.kind != "vector" or label.attribute:
        return []
    names = {spec.name.lower() for spec in classes}
    found = []
    for attribute, values in attribute_values(uri, label.layer).items():
        if len(known := names & set(values)) > 1:
            sentence = f"attribute {attribute!r} names the classes {', '.join(sorted(known))}"
            advice = f"set it to {attribute}; as it is every polygon becomes {classes[label.burn].name}"
            found.append(Finding(uri, sentence, "data.label.attribute", advice, "warning"))
    return found


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Raises UserError with every finding that ends a job, one a line."""
    errors = [finding.message() for finding in findings if finding.severity == "error"]
    if errors:
        raise UserError("\n".join(errors))


def histogram_table(prepared: Sequence[PreparedRegion], classes: Sequence[ClassSpec]) -> Table:
    """Share and number of labelled pixels per class and split, to be printed before training."""
    splits = [split for split in SPLITS if any(p.split == split for p in prepared)]
    counts = {split: _counts(prepared, split) for split in splits}
    table = Table(title="Labelled pixels per class", box=box.SIMPLE)
    table.add_column("id", justify="right")
    table.add_column("class")
    for split in splits:
        regions = sum(p.split == split for p in prepared)
        table.add_column(f"{split}, {regions} region{'s' * (regions != 1)}", justify="right", no_wrap=True)
    for number, spec in enumerate(classes):
        cells = [f"{counts[s][number] / max(1, counts[s].sum()):.2%}  {counts[s][number]:,}" for s in splits]
        table.add_row(str(number), spec.name, *cells)
    return table


def _counts(prepared: Sequence[PreparedRegion], split: str) -> NDArray[np.int64]:
    return np.sum([p.histogram for p in prepared if p.split == split], axis=0, dtype=np.int64)


def _named(labels: Sequence[str]) -> str:
    return f"label {labels[0]}" + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")
