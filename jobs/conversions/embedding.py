"""A label-embedding checkpoint of the authors' code to a file that `convert.py sd` takes.

python jobs/convert.py embedding --input label_embed_net --output embedding.safetensors --keep 6
"""

from __future__ import annotations

from pydantic import Field

from idgbr.cli import JobFlags


class Flags(JobFlags):
    """Flags of `embedding`."""

    input: str
    """Folder label_embed_net, or a file of its tensors (.safetensors, .pth, .pt, .bin)."""
    output: str
    """File to write, .safetensors."""
    keep: int = Field(0, ge=0)
    """How many entries of the table to keep, the first ones; 0: all. Six-class tables of the release have two more."""


def main(flags: Flags) -> dict[str, object]:
    """Converts, and says how well the table is decoded under noise."""
    from idgbr.models.label_embedding import save_label_embedding
    from idgbr.models.release import load_label_embedding
    from idgbr.training.label_embedding import check_decodable

    embedding = load_label_embedding(flags.input, flags.keep or None)
    accuracy = check_decodable(embedding, flags.input)
    path = save_label_embedding(embedding, flags.output)
    return {"embedding": str(path), "classes": embedding.classes, **accuracy.outputs()}
