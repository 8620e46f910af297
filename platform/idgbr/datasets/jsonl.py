"""Chips listed in JSONL files, as the paper's release packages its data: reading such lists, and writing them.

One object a line with the keys image and label_index, optionally rough_label_index (a map to refine) and text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from idgbr.config.data import DataConfig, JsonlSource
from idgbr.datasets.labelled import LabelledScene, make_scene, pair_up, unique_ids
from idgbr.errors import UserError
from idgbr.files import write_atomically


def jsonl_scenes(source: JsonlSource, config: DataConfig) -> list[LabelledScene]:
    """The chips of all lists, each in the split of its list.

    Raises:
        UserError: a list is missing or empty, or a line is no JSON object with the two keys; names file and line.
    """
    rows = [
        (split, *_resolved(row, source.root or str(path.parent)))
        for split, patterns in source.files.items()
        for path in _lists(split, patterns)
        for row in _read_list(path)
    ]
    ids = unique_ids([image for _, image, _, _ in rows])
    return [
        LabelledScene(name, make_scene(image, config), label, split, rough)
        for name, (split, image, label, rough) in zip(ids, rows, strict=True)
    ]


def write_lists(
    images: Sequence[str],
    labels: Sequence[str],
    out_folder: str | Path,
    fractions: Mapping[str, float],
    seed: int = 0,
    pair: str = r"(.+)",
    root: str | Path = "",
) -> dict[str, Path]:
    """Deals pairs of chips to splits and writes one list per split, `out_folder`/SPLIT.jsonl.

    Args:
        images: chip files.
        labels: their label files, in any order.
        out_folder: where the lists go; created if needed.
        fractions: split name -> share of the chips; the shares add up to 1, and every split with a share gets at
            least one chip.
        seed: of the shuffle; the result does not depend on the order of the files given.
        pair: regular expression whose first group must agree between an image's stem and its label's.
        root: folder the paths in the lists are relative to; the `root` to configure for reading. Default: out_folder.

    Returns:
        Split name -> list written.

    Raises:
        UserError: files without partner, shares that do not add up, or fewer chips than splits.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise UserError(f"fractions of the splits must add up to 1, got {dict(fractions)}")
    pairs = pair_up(images, labels, pair)
    names = [name for name, share in fractions.items() if share > 0]
    if len(pairs) < len(names):
        raise UserError(f"{len(pairs)} chip(s) cannot fill {len(names)} splits ({', '.join(names)})")
    order = np.random.default_rng(seed).permutation(len(pairs))
    bounds = np.round(np.cumsum([fractions[name] for name in names]) * len(pairs)).astype(int)
    for i in range(len(names)):  # at least one chip each, from the front and from the back
        low, high = i + 1, len(pairs) - (len(names) - 1 - i)
        bounds[i] = min(max(bounds[i], low, bounds[i - 1] + 1 if i else 1), high)
    folder = Path(out_folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = Path(root or folder).absolute()
    written = {}
    for name, start, stop in zip(names, [0, *bounds[:-1]], bounds, strict=True):
        rows = [
            {"image": _relative(image, base), "label_index": _relative(label, base), "text": ""}
            for image, label in (pairs[i] for i in sorted(order[start:stop]))
        ]
        path = folder / f"{name}.jsonl"
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
        written[name] = path
    return written


def _relative(uri: str, base: Path) -> str:
    return uri if "://" in uri else os.path.relpath(Path(uri).absolute(), base)


def _lists(split: str, patterns: Sequence[str]) -> list[Path]:
    found = []
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.is_file() else sorted(Path(path.anchor or ".").glob(pattern.removeprefix(path.anchor)))
        matches = [match for match in matches if match.is_file()]
        if not matches:
            raise UserError(f"data.source.files.{split}: no list matches {pattern}")
        found += matches
    return found


def _read_list(path: Path) -> list[dict[str, str]]:
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a JSONL list ({error})") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: no valid JSON ({error.msg}); expected one object a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: found {type(row).__name__}, expected an object with image, label_index")
        for key in ("image", "label_index"):
            if not isinstance(row.get(key), str) or not row[key]:
                keys = ", ".join(row) or "none"
                raise UserError(f"{path}:{number}: key '{key}' is missing or no path (keys found: {keys})")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: the list is empty; expected one JSON object a line")
    return rows


def _resolved(row: dict[str, str], root: str) -> tuple[str, str, str | None]:
    """Addresses of image, label and rough map of a row."""
    image, label = _join(root, row["image"]), _join(root, row["label_index"])
    rough = row.get("rough_label_index")
    return image, label, _join(root, rough) if rough else None


def _join(root: str, path: str) -> str:
    if "://" in path or Path(path).is_absolute():
        return path
    return f"{root.rstrip('/')}/{path}" if "://" in root else os.path.normpath(Path(root) / path)
