"""Writing an experiment: a YAML file with every key's meaning beside it."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from idgbr.config.keys import descriptions
from idgbr.config.recipe import RECIPE
from idgbr.config.tree import Experiment
from idgbr.datasets.inspection import Inspection
from idgbr.files import write_atomically

_LOOKS = 10
"""How often stage 1 of the recipe looks at every pixel."""
_STEPS = (300, 2000)
_WIDTH, _COLUMN = 118, 38


@dataclass(frozen=True)
class Machine:
    """What a recipe has to fit."""

    cpus: int
    gpus: int


def experiment(inspection: Inspection, machine: Machine) -> dict[str, Any]:
    """The sections of an experiment for inspected data: the measured recipe, with steps for its amount of ground."""
    tree: dict[str, Any] = {"data": copy.deepcopy(inspection.data), **copy.deepcopy(RECIPE)}
    side = min(min(one.profile.height, one.profile.width) for one in inspection.images)
    coarse, refiner = tree["coarse"], tree["refiner"]
    for section, multiple in ((coarse, 32), (refiner, 16)):
        section["window"] = max(32, min(section["window"], side // multiple * multiple))
    share = 1 - 0.15 - 0.25
    steps = round(_LOOKS * inspection.pixels * share / (8 * coarse["window"] ** 2), -1)
    steps = int(min(max(steps, _STEPS[0]), _STEPS[1]))
    tree["training"]["coarse"] |= {"steps": steps, "validate_every": max(1, steps // 2)}
    if tree["data"]["split"]["by"] == "block":
        coarse["fold_block"] = max(32, tree["data"]["split"]["block"])
    if len(tree["data"]["bands"]) not in (1, 3):
        # Weights of three bands are spread over more of them for stage 1; the frozen encoder of stage 2 cannot learn.
        refiner["image_encoder"] = ""
    tree["resources"] = _resources(machine)
    return tree


def _resources(machine: Machine) -> dict[str, Any]:
    if machine.gpus:
        return {"train_workers": machine.gpus, "infer_workers": machine.gpus, "gpus_per_worker": 1}
    workers = 2 if machine.cpus >= 2 else 1
    return {
        "train_workers": workers,
        "infer_workers": workers,
        "threads_per_worker": max(1, machine.cpus // workers),
        "logical_cpus": max(4, workers + 2),
    }


def written(tree: Mapping[str, Any], head: str) -> str:
    """An experiment as text, each line with its key's meaning as far as there is room.

    Args:
        tree: its sections.
        head: comment lines that come first.
    """
    text = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)
    meanings = descriptions(Experiment)
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        name, colon, _ = line.strip().partition(":")
        if colon and not name.startswith(("-", "'", '"', "{")):
            indent = len(line) - len(line.lstrip())
            path = [part for part in path if part[0] < indent] + [(indent, name)]
            meaning = meanings.get(".".join(part for _, part in path), "")
            if not indent:
                lines.append("")
            elif meaning and max(len(line), _COLUMN) + len(meaning) + 4 <= _WIDTH:
                line = f"{line:<{_COLUMN}}  # {meaning}"
            elif meaning:
                margin = " " * indent + "# "
                lines += textwrap.wrap(meaning, _WIDTH, initial_indent=margin, subsequent_indent=margin)
        lines.append(line)
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """A key a line, lists of plain values and the classes in one line."""


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.Node:
    flat = set(value) == {"name", "colour"} or not all(isinstance(key, str) for key in value)
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=flat)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _list)


def write_experiment(path: str, tree: Mapping[str, Any], head: str) -> None:
    """Writes an experiment under its name, whole or not at all."""
    write_atomically(path, written(tree, head))
