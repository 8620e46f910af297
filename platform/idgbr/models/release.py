"""Checkpoints of the authors' code: a folder with unet_ori, unet_gen, interact_net, label_embed_net, vae, scheduler.

Their module names are mapped to those of this package; the tensors themselves are not converted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from idgbr.config.models import RefinerConfig
from idgbr.errors import UserError
from idgbr.models.checkpoints import fill, plain, read_config, read_state, read_unet, read_vae
from idgbr.models.label_embedding import LearnedEmbedding
from idgbr.models.refiner import Refiner

_EMBEDDING_NAMES = {"embedding_table.weight": "table.weight"} | {
    f"embedding_conv.{i}.{p}": f"decoder.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")
}
_BLOCK_NAMES = (
    (r"^attn_blocks_mid\.", "blocks.{mid}."),
    (r"^attn_blocks_down\.(\d+)\.", r"blocks.\1."),
    (r"\.conv\.", ".fuse."),
    (r"\.attn\.conv1_q\.", ".to_query."),
    (r"\.attn\.conv1_k\.", ".to_key."),
    (r"\.attn\.positional_embedding$", ".position"),
    (r"\.attn\.ln_pre_q\.", ".norm_query."),
    (r"\.attn\.ln_pre_k\.", ".norm_key."),
    (r"\.attn\.ln_post\.", ".norm_out."),
    (r"\.attn\.proj\.", ".to_residual."),
    (r"\.attn\.transformer\.resblocks\.(\d+)\.", r".layers.\1."),
    (r"\.ln_1q\.", ".norm_query."),
    (r"\.ln_1k\.", ".norm_key."),
    (r"\.ln_1v\.", ".norm_value."),
    (r"\.ln_2\.", ".norm_mlp."),
    (r"\.mlp\.c_fc\.", ".expand."),
    (r"\.mlp\.c_proj\.", ".contract."),
    (r"(layers\.\d+)\.attn\.out_proj\.", r"\1.attention.out."),
)


def load_release(
    folder: str | Path, prompt: Tensor, classes: int | None = None, stable_diffusion: str | Path | None = None
) -> Refiner:
    """Load a refiner written by the authors' code.

    Args:
        folder: Its folder.
        prompt: (1, tokens, width) embedding of the empty prompt.
        classes: Number of classes to keep, from the start of the label table; the released table of the six-class data
            sets has two unused entries at its end. Default: all.
        stable_diffusion: Folder of the Stable Diffusion model from which it was trained, for parts that the release's
            folder lacks (vae, scheduler, and unet in place of unet_ori).

    Raises:
        UserError: A part is missing, or its tensors do not fit; the message names the part and the tensor.
    """
    root = Path(folder)

    def part(name: str, other: str = "") -> Path:
        if (root / name).is_dir() or stable_diffusion is None:
            return root / name
        return Path(stable_diffusion) / (other or name)

    interact = read_config(root / "interact_net")
    denoiser, vae = read_unet(root / "unet_gen"), read_vae(part("vae"))
    scheduler = read_config(part("scheduler"))
    guidance = _guidance_state(read_state(root / "interact_net"), root / "interact_net")
    embedding = load_label_embedding(root / "label_embed_net", classes)
    stride = 2 ** (len(vae.config["block_out_channels"]) - 1)
    settings = RefinerConfig(
        codec="kl-vae",
        embedding="learned",
        window=interact["block_out_resolutions"][0] * stride,
        channels=list(denoiser.config["block_out_channels"]),
        layers_per_block=denoiser.config["layers_per_block"],
        guidance_width=guidance["blocks.0.to_query.weight"].shape[0],
        guidance_heads=interact["attn_heads"],
        guidance_layers=interact["attn_layers"],
        condition_encoder="unet",
        image_encoder="",
        prediction=_prediction(scheduler["prediction_type"]),
        self_conditioning=False,
        schedule="scaled_linear",
        train_timesteps=scheduler["num_train_timesteps"],
    )
    refiner = Refiner(
        classes=embedding.classes,
        bands=3,
        settings=settings.model_dump(),
        unet=plain(denoiser.config),
        vae=plain(vae.config),
        prompt_shape=list(prompt.shape[1:]),
    )
    assert refiner.prompt is not None
    refiner.prompt.copy_(prompt)
    fill(refiner.denoiser, denoiser.state_dict(), root / "unet_gen")
    original = part("unet_ori", "unet")
    fill(refiner.encoder.unet, read_state(original), original)  # type: ignore[arg-type]
    fill(refiner.codec.vae, vae.state_dict(), part("vae"))  # type: ignore[arg-type,union-attr]
    fill(refiner.guidance, guidance, root / "interact_net")
    refiner.embedding.load_state_dict(embedding.state_dict())
    return refiner.eval()


def load_label_embedding(source: str | Path, classes: int | None = None) -> LearnedEmbedding:
    """Load a label embedding: the authors' checkpoint, or one that `jobs/embedding.py` trained.

    Args:
        source: Folder label_embed_net, or a file of its tensors.
        classes: Number of classes to keep, from the start of the table; default: all.

    Raises:
        UserError: Tensors are missing or do not fit, or there are fewer classes.
    """
    path = Path(source)
    state = {_EMBEDDING_NAMES.get(name, name): value.float() for name, value in read_state(path).items()}
    for name in ("table.weight", "decoder.2.weight", "decoder.2.bias"):
        if name not in state:
            raise UserError(
                f"{path}: tensor {name} is missing (found {', '.join(sorted(state)[:6])}); expected a label embedding: "
                "a table and two 1x1 convolutions"
            )
    found = len(state["table.weight"])
    if classes is not None and classes > found:
        raise UserError(
            f"{path}: a label embedding of {found} classes; expected {classes}. Train one: jobs/embedding.py"
        )
    kept = found if classes is None else classes
    for name in ("table.weight", "decoder.2.weight", "decoder.2.bias"):
        if len(state[name]) != found:
            raise UserError(f"{path}: {name} is for {len(state[name])} classes, the table for {found}")
        state[name] = state[name][:kept]
    embedding = LearnedEmbedding(kept)
    fill(embedding, state, path)
    return embedding.requires_grad_(False).eval()


def _guidance_state(state: dict[str, Tensor], part: Path) -> dict[str, Tensor]:
    skips = [int(m.group(1)) for k in state if (m := re.match(r"attn_blocks_down\.(\d+)\.", k))]
    if not skips or "attn_blocks_down.0.attn.conv1_q.weight" not in state:
        raise UserError(f"{part}: tensor attn_blocks_down.0.attn.conv1_q.weight is missing; expected a guidance net")
    mid = 1 + max(skips)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, ours in _BLOCK_NAMES:
            name = re.sub(pattern, ours.replace("{mid}", str(mid)), name)
        packed = re.match(r"(.*layers\.\d+)\.attn\.in_proj_(weight|bias)$", name)
        if packed:
            for which, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{packed.group(1)}.attention.{which}.{packed.group(2)}"] = chunk.contiguous()
        else:
            renamed[name] = value
    return renamed


def _prediction(name: str) -> Any:
    kinds = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
    if name not in kinds:
        raise UserError(f"scheduler: prediction_type {name!r} is unknown; expected one of {', '.join(kinds)}")
    return kinds[name]
