"""Builds a refiner from Stable Diffusion 1.5 in diffusers' layout.

Its UNet initialises the denoiser. The UNet's down and mid path become the frozen condition encoder, and its autoencoder
becomes the latent codec. Of its text encoder only the embedding of the empty prompt is needed; it is computed once and
stored.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from idgbr.config.models import RefinerConfig
from idgbr.errors import UserError
from idgbr.models.checkpoints import fill, plain, read_config, read_unet, read_vae
from idgbr.models.label_embedding import LearnedEmbedding
from idgbr.models.refiner import Refiner


def load_stable_diffusion(
    folder: str | Path, settings: RefinerConfig, embedding: LearnedEmbedding, prompt: Tensor
) -> Refiner:
    """Build a refiner from a Stable Diffusion model; the residuals of the guidance net are zero at first.

    Args:
        folder: Folder with unet, vae and scheduler, each in diffusers' layout.
        settings: Settings of the refiner; the UNet's values replace `channels` and `layers_per_block`.
        embedding: The trained label embedding.
        prompt: (1, tokens, width) embedding of the empty prompt.

    Raises:
        UserError: A part is missing, incomplete or unsuitable, or the settings specify another kind of refiner.
    """
    root = Path(folder)
    if settings.codec != "kl-vae" or settings.condition_encoder != "unet":
        raise UserError(
            f"refiner.codec {settings.codec} and refiner.condition_encoder {settings.condition_encoder}: a refiner out "
            "of Stable Diffusion has kl-vae and unet; use one of configs/paper/"
        )
    unet, vae = read_unet(root / "unet"), read_vae(root / "vae")
    _check_fit(root, settings, unet.config, vae.config, prompt)
    settings = settings.model_copy(
        update={
            "channels": list(unet.config["block_out_channels"]),
            "layers_per_block": unet.config["layers_per_block"],
        }
    )
    refiner = Refiner(
        embedding.classes,
        3,
        settings.model_dump(),
        unet=plain(unet.config),
        vae=plain(vae.config),
        prompt_shape=list(prompt.shape[1:]),
    )
    assert refiner.prompt is not None
    refiner.prompt.copy_(prompt)
    weights = unet.state_dict()
    fill(refiner.denoiser, weights, root / "unet")
    fill(refiner.encoder.unet, weights, root / "unet")  # type: ignore[arg-type]
    fill(refiner.codec.vae, vae.state_dict(), root / "vae")  # type: ignore[arg-type,union-attr]
    refiner.embedding.load_state_dict(embedding.state_dict())
    return refiner.eval()


def empty_prompt(folder: str | Path) -> Tensor:
    """The empty prompt's embedding, (1, tokens, width).

    Args:
        folder: Folder with tokenizer and text_encoder, or a safetensors file with one tensor.

    Raises:
        UserError: They are missing, or the package transformers is not installed, which only this function needs.
    """
    root = Path(folder)
    if root.is_file():
        tensors = load_file(root)
        value = next(iter(tensors.values()))
        if len(tensors) != 1 or value.ndim != 3 or value.shape[0] != 1:
            raise UserError(
                f"{root}: holds {', '.join(f'{k} {tuple(v.shape)}' for k, v in tensors.items())}; expected one tensor "
                "(1, tokens, width), the embedding of the empty prompt"
            )
        return value.float()
    for part in ("tokenizer", "text_encoder"):
        if not (root / part).is_dir():
            raise UserError(f"{root / part}: no such folder; the empty prompt's embedding is computed from it")
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise UserError(
            "the empty prompt's embedding is computed by the package transformers, which is not installed: pip install "
            "transformers, for this conversion only; or give the embedding as a file with --prompt"
        ) from error
    try:
        tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(root / "text_encoder", torch_dtype=torch.float32).eval()
    except Exception as error:
        raise UserError(f"{root}: tokenizer or text_encoder cannot be loaded: {str(error).splitlines()[0]}") from error
    length = encoder.config.max_position_embeddings
    words = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        embedding: Tensor = encoder(words.input_ids)[0]
    return embedding


def _check_fit(root: Path, settings: RefinerConfig, unet: dict, vae: dict, prompt: Tensor) -> None:
    if unet["in_channels"] != vae["latent_channels"]:
        raise UserError(
            f"{root}: the UNet takes {unet['in_channels']} latent channels, the autoencoder gives "
            f"{vae['latent_channels']}. Do the parts of this folder belong together?"
        )
    if unet["cross_attention_dim"] != prompt.shape[-1]:
        raise UserError(
            f"{root}: the UNet takes prompts of width {unet['cross_attention_dim']}, the empty prompt's embedding has "
            f"{prompt.shape[-1]}. Do the parts of this folder belong together?"
        )
    multiple = 2 ** (len(vae["block_out_channels"]) + len(unet["block_out_channels"]) - 2)
    if settings.window % multiple:
        raise UserError(f"refiner.window: found {settings.window}; this UNet needs a multiple of {multiple}")
    scheduler = read_config(root / "scheduler") if (root / "scheduler").is_dir() else {}
    trained = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}.get(scheduler.get("prediction_type", ""))
    if trained is not None and trained != settings.prediction:
        raise UserError(
            f"{root / 'scheduler'}: this UNet predicts {trained}, refiner.prediction is {settings.prediction}. Set "
            f"refiner.prediction to {trained}"
        )
