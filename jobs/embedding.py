"""Train a label embedding for a number of classes: seconds on a CPU.

    python jobs/embedding.py --classes 6 --output embedding.safetensors

Says how many pixels are decoded to their class under noise of several deviations; a table that cannot be decoded is
refused, and not written. jobs/convert.py sd takes one, and trains its own where it is given none.
"""

from __future__ import annotations

from typing import NoReturn

from pydantic import Field

from idgbr.cli import JobFlags, run_job


class Flags(JobFlags):
    """Flags of the label embedding's training."""

    classes: int = Field(ge=2, le=255)
    """Number of classes."""
    output: str
    """File to write, .safetensors."""
    seed: int = 0
    """Seed of start, label maps and noise."""


def main(flags: Flags) -> dict[str, object]:
    """Trains, measures, writes."""
    from idgbr.models.label_embedding import save_label_embedding
    from idgbr.training.label_embedding import decode_accuracy, train_label_embedding

    embedding = train_label_embedding(flags.classes, flags.seed)
    path = save_label_embedding(embedding, flags.output)
    return {"embedding": str(path), "classes": flags.classes, **decode_accuracy(embedding).outputs()}


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, Flags, __doc__)


if __name__ == "__main__":
    run()
