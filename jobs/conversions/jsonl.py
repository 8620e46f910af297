"""Lists of chips, dealt to splits, one JSON object a line, as data.source.kind jsonl reads them.

python jobs/convert.py jsonl --images chips/image --labels chips/label --output lists/ --train 0.6 --select 0.2
"""

from __future__ import annotations

from pydantic import Field

from idgbr.cli import JobFlags
from idgbr.errors import UserError


class Flags(JobFlags):
    """Flags of `jsonl`."""

    images: list[str]
    """Files, folders or globs of chips."""
    labels: list[str]
    """Files, folders or globs of their label rasters."""
    output: str
    """Folder for train.jsonl, select.jsonl and test.jsonl."""
    train: float = Field(0.6, ge=0, le=1)
    """Share of the chips to train on."""
    select: float = Field(0.2, ge=0, le=1)
    """Share of the validation split; the remaining chips are the test split."""
    seed: int = 0
    """Seed of the shuffle."""
    root: str = ""
    """Folder the listed paths are relative to, as data.source.root then says; empty: the output folder."""
    pair: str = r"(.+)"
    """Regular expression whose first group must agree in the stems of an image and its label."""


def main(flags: Flags) -> dict[str, object]:
    """Writes the lists."""
    from idgbr.datasets.jsonl import write_lists
    from idgbr.raster.listing import expand

    if flags.train + flags.select > 1:
        raise UserError(f"--train {flags.train} and --select {flags.select} add up to more than 1; lower one of them")
    shares = {"train": flags.train, "select": flags.select, "test": round(1 - flags.train - flags.select, 9)}
    written = write_lists(
        expand(flags.images), expand(flags.labels), flags.output, shares, flags.seed, flags.pair, flags.root
    )
    return {split: str(path) for split, path in written.items()}
