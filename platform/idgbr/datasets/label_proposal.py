"""How labels can be read: classes and keys of `data.label`, from what the files hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from idgbr.raster.findings import Finding
from idgbr.raster.label_survey import LabelSurvey, merged, shares
from idgbr.raster.vectors import NO_VALUE, attribute_values, polygon_layers

COLOURS = ["#c8c8a0", "#dc2828", "#5a5a5a", "#147814", "#f0dc3c", "#1e78c8", "#8c50c8", "#e08214", "#00a0a0", "#c864a0"]
"""Display colours of classes whose files have none, in the order of the ids."""

_NAMED = {
    "#ffffff": "impervious", "#0000ff": "building", "#00ffff": "low_vegetation", "#00ff00": "tree", "#ffff00": "car",
    "#ff0000": "clutter",
}  # fmt: skip
"""Label colours of the ISPRS benchmarks."""
_KNOWN = [
    _NAMED,
    {"#3c1098": "building", "#8429f6": "land", "#6ec1e4": "road", "#fedd3a": "vegetation", "#e2a929": "water",
     "#9b9b9b": ""},
    {"#00ffff": "urban", "#ffff00": "agriculture", "#ff00ff": "rangeland", "#00ff00": "forest", "#0000ff": "water",
     "#ffffff": "barren"},
]  # fmt: skip
"""Colours of widely used sets, each with the names of its classes; an empty name: no label."""
_OBJECTS = ("building", "house", "roof", "road", "water", "field", "tree", "forest", "car", "solar", "crop", "pool")
_ATTRIBUTES = ("class", "classname", "class_name", "label", "category", "type", "kind", "landuse", "landcover", "name")
_MOST = 30
"""Most classes that values may stand for; more values are identities of objects."""
_LOW = {float(v) for v in range(49)}
"""Values of the lower peak of a mask of 0 and 255 that was blurred."""
_RARE = 0.0005
"""Share of pixels below which a colour or value is an accident."""
_GROUND = 0.01
"""Smallest share of black pixels of masks in many colours."""
_CODED = 0.9
"""Smallest share of pixels in the colours of a code; those of smoothed or lossy labels are mixtures."""


@dataclass(frozen=True)
class Proposal:
    """A way to read labels.

    Attributes:
        classes: `data.classes`.
        label: keys of `data.label`.
        why: what was seen, in words, for the file's comment.
        findings: what is doubtful about it.
    """

    classes: list[dict[str, str]]
    label: dict[str, Any]
    why: str
    findings: list[Finding] = field(default_factory=list)


def propose_raster(surveys: Sequence[LabelSurvey]) -> Proposal:
    """A reading of label rasters."""
    values, colours = merged(surveys)
    if any(survey.colours for survey in surveys) and not all(
        survey.alike and (not survey.header.palette or _black_and_white(survey)) for survey in surveys
    ):
        return _colours(surveys, colours)
    if any(survey.header.bands >= 3 and not survey.alike for survey in surveys):
        return _many_colours(surveys, "thousands of colours", values.get(0, 0) / max(1, sum(values.values())))
    if _has_soft_edges(surveys, values):
        between = sum(count for value, count in values.items() if 0 < value < 255) / sum(values.values())
        sentence = f"masks of 0 and 255 with soft edges: {between:.2%} of the pixels lie between the two values"
        advice = "128 is the middle of an edge; set data.label.nonzero instead if every value but 0 is the object"
        doubt = Finding(surveys[0].uri, sentence, "data.label.threshold", advice, "warning")
        why = f"masks of 0 and 255 with soft edges: {shares(values)}"
        return Proposal(_binary(surveys), {"kind": "index", "threshold": 128}, why, [doubt])
    tags = {s.header.nodata for s in surveys} - {None}
    numbers = sorted(int(v) for v in values if float(v).is_integer())
    if _are_instances(surveys, numbers):
        doubt = Finding(
            surveys[0].uri, f"{len(numbers)} values, which look like one id for every object", "data.label.nonzero",
            "read as two classes, 0 and anything else; boundaries between touching objects are not seen", "warning",
        )  # fmt: skip
        return Proposal(_binary(surveys), _nonzero(), f"an id for every object: {shares(values)}", [doubt])
    if numbers in ([0, 255], [255]) or (len(numbers) == 2 and numbers[0] == 0 and numbers[1] != 1):
        return Proposal(_binary(surveys), _nonzero(), f"masks of two values: {shares(values)}")
    ids = [n for n in numbers if n != 255 and n >= 0]
    if len(ids) == 1 and any(survey.hidden for survey in surveys):
        return _objects_alone(surveys, shares(values))
    label: dict[str, Any] = {"kind": "index"}
    if ids != list(range(len(ids))) or tags & set(ids):
        label["values"] = {n: i for i, n in enumerate(ids)}
    classes = _binary(surveys) if ids in ([0, 1], [0]) else [_class(i, f"class_{n}") for i, n in enumerate(ids)]
    findings = []
    if below := sorted({n for n in numbers if n < 0} - tags):
        label["ignore"] = [255, *below]
        sentence = f"values below 0: {', '.join(map(str, below))}"
        findings.append(Finding(surveys[0].uri, sentence, "data.label.ignore", "read as no label", "warning"))
    if tagged := sorted(t for t in tags & set(ids) if t is not None):
        sentence = f"value {tagged[0]:g} is a class and the files' nodata tag at once"
        advice = "mapped there, so that it counts as a class"
        findings.append(Finding(surveys[0].uri, sentence, "data.label.values", advice, "warning"))
    return Proposal(classes, label, f"class ids: {shares(values)}", findings)


def propose_vector(uris: Sequence[str]) -> Proposal:
    """A reading of polygon files; `uris` are alike."""
    label: dict[str, Any] = {"kind": "vector"}
    layers, findings = polygon_layers(uris[0]), []
    if len(layers) > 1:
        words = [name for name in layers if any(o in name.lower() for o in _OBJECTS)]
        label["layer"] = (words or layers)[0]
        sentence = f"several layers of polygons: {', '.join(layers)}"
        findings.append(Finding(uris[0], sentence, "data.label.layer", f"{label['layer']} was taken", "warning"))
    held: dict[str, dict[str, int]] = {}
    for uri in uris[:200]:
        for name, values in attribute_values(uri, label.get("layer", "")).items():
            known = held.setdefault(name, {})
            for value, count in values.items():
                known[value] = known.get(value, 0) + count
    ranked = sorted(held, key=lambda n: (_ATTRIBUTES.index(n.lower()) if n.lower() in _ATTRIBUTES else 99, n))
    chosen = next((n for n in ranked if n.lower() in _ATTRIBUTES and 1 <= len(set(held[n]) - {NO_VALUE}) <= _MOST), "")
    names = sorted(set(held.get(chosen, ())) - {NO_VALUE, "background"})
    classes = [_class(0, "background")]
    if not names:
        name = _object([*uris, label.get("layer", "")])
        return Proposal(
            [*classes, _class(1, name)], label, f"polygons without an attribute of classes: {name}", findings
        )
    label["attribute"] = chosen
    if NO_VALUE in held[chosen]:
        label["ignore"] = [NO_VALUE]
        sentence = f"attribute {chosen!r} has no value in {held[chosen][NO_VALUE]} polygon(s)"
        findings.append(Finding(uris[0], sentence, "data.label.ignore", "their ground carries no label", "warning"))
    safe = [re.sub(r"\W+", "_", name) for name in names]
    if safe != names:
        label["values"] = {name: i for i, name in enumerate(names, 1)}
    classes += [_class(i, name) for i, name in enumerate(safe, 1)]
    return Proposal(classes, label, f"attribute {chosen}: {shares(held[chosen])}", findings)


def _colours(surveys: Sequence[LabelSurvey], colours: Mapping[str, int]) -> Proposal:
    total = max(1, sum(colours.values()))
    kept = [colour for colour, count in colours.items() if count / total >= _RARE]
    if len(kept) == 1 and any(survey.hidden for survey in surveys):
        return _objects_alone(surveys, shares(colours))
    if not colours or len(kept) > _MOST or sum(colours[c] for c in kept) < _CODED * total:
        return _many_colours(surveys, f"{len(colours)} colours", colours.get("#000000", 0) / total)
    known = next((code for code in _KNOWN if len(set(kept) & set(code)) >= max(3, len(kept) - 1)), {})
    named = {c: known.get(c, f"colour_{c[1:]}") for c in kept}
    ignored = [c for c in kept if not named[c] or (c == "#000000" and (known or len(kept) > 2))]
    rare = [c for c in colours if c not in kept]
    order = list(known)
    if len(kept) == 2 and "#000000" in kept:  # a mask of one class, painted in a colour
        order = sorted(kept)
        named = dict(zip(order, (spec["name"] for spec in _binary(surveys)), strict=True))
    classes = [{"name": named[c], "colour": c} for c in kept if c not in ignored]
    classes.sort(key=lambda spec: order.index(spec["colour"]) if spec["colour"] in order else 99)
    label = {"kind": "colour", "ignore_colours": sorted({*ignored, *rare, "#000000"} - {c["colour"] for c in classes})}
    findings = []
    if rare := [c for c in rare if c != "#000000"]:
        count = sum(colours[c] for c in rare)
        sentence = f"{len(rare)} colours on {count / total:.3%} of the pixels are too rare to be classes"
        advice = "these pixels carry no label"
        findings.append(Finding(surveys[0].uri, sentence, "data.label.ignore_colours", advice, "warning"))
    return Proposal(classes, label, f"colours: {shares(colours)}", findings)


def _many_colours(surveys: Sequence[LabelSurvey], held: str, black: float) -> Proposal:
    """A reading of labels with more colours than classes; `black` is the share of black pixels."""
    if black < _GROUND:
        doubt = Finding(
            surveys[0].uri, f"{held} and no black, so no colour code of classes", "data.source.labels",
            "is it imagery, or smoothed, or lossily compressed? Labels are neither", "error",
        )  # fmt: skip
        return Proposal(_binary(surveys), _nonzero(), held, [doubt])
    doubt = Finding(
        surveys[0].uri, f"{held}, no colour code of classes", "data.label.nonzero",
        "read as two classes, black and anything else", "warning",
    )  # fmt: skip
    return Proposal(_binary(surveys), _nonzero(), "black, and other colours", [doubt])


def _objects_alone(surveys: Sequence[LabelSurvey], held: str) -> Proposal:
    doubt = Finding(
        surveys[0].uri, "pixels beside the objects are transparent, masked or NaN", "data.label.nonzero",
        "read as class 0; without the key they carry no label", "warning",
    )  # fmt: skip
    return Proposal(_binary(surveys), _nonzero(), f"objects and nothing else: {held}", [doubt])


def _black_and_white(survey: LabelSurvey) -> bool:
    """Whether a colour table shows 0 black and another value white: files of one bit have such a table."""
    colours = survey.colours
    return set(colours) <= {"#000000", "#ffffff"} and colours.get("#000000", 0) == survey.values.get(0, 0)


def _are_instances(surveys: Sequence[LabelSurvey], numbers: Sequence[int]) -> bool:
    """Whether values count objects: too many for classes, or every file counts from 1 up to a number of its own."""
    if len(numbers) > _MOST or any(not survey.values for survey in surveys):
        return True
    tops = [max(survey.values) for survey in surveys if len(survey.values) > 2]
    counted = all(sorted(s.values)[-1] <= len(s.values) for s in surveys if len(s.values) > 2)
    return len(tops) >= 5 and counted and len(set(tops)) >= len(tops) / 2 and max(tops) > 10


def _has_soft_edges(surveys: Sequence[LabelSurvey], values: Mapping[float, int]) -> bool:
    """Whether values are a mask of 0 and 255, mixed at its edges by compression, resizing or anti-aliasing.

    A value between the two peaks is required in lossless files: 0, 1, 2 and 255 are class ids and their "no label".
    """
    if len(values) <= 2 or not any(survey.blurred for survey in surveys) or not set(_but_rare(values)) <= _peaks():
        return False
    return any(survey.header.lossy for survey in surveys) or bool(set(values) - _LOW - {255.0})


def _but_rare(values: Mapping[float, int]) -> list[float]:
    total = max(1, sum(values.values()))
    return [value for value, count in values.items() if count / total >= 0.02]


def _peaks() -> set[float]:
    return _LOW | {float(v) for v in range(207, 256)}


def _nonzero() -> dict[str, Any]:
    return {"kind": "index", "nonzero": True, "ignore": []}


def _binary(surveys: Sequence[LabelSurvey]) -> list[dict[str, str]]:
    return [_class(0, "background"), _class(1, _object([survey.uri for survey in surveys[:1]]))]


def _object(names: Sequence[str]) -> str:
    """What polygons or masks show, if a file, folder or layer says so."""
    words = " ".join(["/".join(PurePosixPath(name).parts[-3:]).lower() for name in names])
    return next((word for word in _OBJECTS if re.search(rf"(?<![a-z]){word}(?:e?s)?(?![a-z])", words)), "object")


def _class(number: int, name: str) -> dict[str, str]:
    if number < len(COLOURS):
        return {"name": name, "colour": COLOURS[number]}
    mixed = (number * 2654435761) % 0xFFFFFF
    return {"name": name, "colour": f"#{mixed:06x}"}
