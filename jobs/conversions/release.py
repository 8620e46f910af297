"""A refiner trained by the authors' code to a model folder that refines coarse maps.

    python jobs/convert.py release --config configs/paper/potsdam.yaml --input checkpoint --sd stable-diffusion-v1-5 \
        --unused 2 --output models/potsdam-release
    python jobs/refine.py --model models/potsdam-release --input scene.tif --coarse map.tif --output maps/

The folder has unet_gen, interact_net and label_embed_net; unet_ori, vae, scheduler, tokenizer and text_encoder may be
there too, or in the Stable Diffusion folder it was trained from.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from idgbr.cli import ExperimentFlags
from idgbr.config.tree import Experiment
from idgbr.errors import UserError


class Flags(ExperimentFlags):
    """Flags of `release`."""

    input: str
    """Folder that the authors' code wrote."""
    output: str
    """Model folder to write."""
    sd: str = ""
    """Stable Diffusion folder, for the parts that `input` does not repeat."""
    prompt: str = ""
    """Safetensors file of the empty prompt's embedding, (1, tokens, width); empty: computed by transformers."""
    unused: int = Field(0, ge=0)
    """Entries at the end of the label table that no class uses; the released table of the six-class sets has two."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Converts."""
    from idgbr.models.release import load_label_embedding, load_release
    from idgbr.models.stable_diffusion_folder import empty_prompt
    from idgbr.training.label_embedding import check_decodable
    from jobs.conversions._refiner import check_classes, write

    classes, table = check_classes(experiment), Path(flags.input) / "label_embed_net"
    found = load_label_embedding(table).classes
    if found - flags.unused != classes:
        raise UserError(
            f"{table}: a table of {found} classes"
            + (f", {flags.unused} of them unused" if flags.unused else "")
            + f"; data.classes has {classes}. Name the classes it was trained on, and say with --unused how many "
            "entries at its end no class uses"
        )
    own = (Path(flags.input) / "text_encoder").is_dir()
    prompt = empty_prompt(flags.prompt or (flags.input if own or not flags.sd else flags.sd))
    refiner = load_release(flags.input, prompt, classes, flags.sd or None)
    check_decodable(refiner.embedding, str(table))  # type: ignore[arg-type]
    return write(refiner, experiment, flags.output, flags.input)
