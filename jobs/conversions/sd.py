"""A Stable Diffusion 1.5 folder (diffusers' layout) to a model folder that training starts from.

    pip install transformers
    python jobs/convert.py sd --config configs/paper/potsdam.yaml --input stable-diffusion-v1-5 --output models/sd
    python jobs/train.py --config configs/paper/potsdam.yaml --from models/sd

The UNet becomes the denoiser's start, its down and mid path the frozen condition encoder, the autoencoder the latent
codec. The empty prompt's embedding is computed once and stored: transformers is needed for this alone.
"""

from __future__ import annotations

from idgbr.cli import ExperimentFlags
from idgbr.config.tree import Experiment


class Flags(ExperimentFlags):
    """Flags of `sd`."""

    input: str
    """Folder with unet, vae, scheduler, tokenizer and text_encoder."""
    output: str
    """Model folder to write."""
    embedding: str = ""
    """Label embedding: a file of jobs/embedding.py or convert.py embedding; empty: one is trained (seconds)."""
    prompt: str = ""
    """Safetensors file of the empty prompt's embedding, (1, tokens, width); empty: computed by transformers."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Converts."""
    from idgbr.models.release import load_label_embedding
    from idgbr.models.stable_diffusion_folder import empty_prompt, load_stable_diffusion
    from idgbr.training.label_embedding import check_decodable, train_label_embedding
    from jobs.conversions._refiner import check_classes, write

    classes = check_classes(experiment)
    if flags.embedding:
        embedding = load_label_embedding(flags.embedding, classes)
        check_decodable(embedding, flags.embedding)
    else:
        embedding = train_label_embedding(classes)
    prompt = empty_prompt(flags.prompt or flags.input)
    refiner = load_stable_diffusion(flags.input, experiment.refiner, embedding, prompt)
    return write(refiner, experiment, flags.output, flags.input)
