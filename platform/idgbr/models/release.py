"""Checkpoints of the authors' code: a folder with unet_ori, unet_gen, interact_net, label_embed_net, vae, scheduler.

Their module names are mapped onto ours; nothing is converted but names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from idgbr.config.tree import RefinerConfig
from idgbr.errors import UserError
from idgbr.models.refiner import Refiner

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_EXPECTED = "A release folder has unet_ori, unet_gen, interact_net, label_embed_net, vae and scheduler"
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


def load_release(folder: str | Path, prompt: Tensor) -> Refiner:
    """Load a refiner written by the authors' code.

    Args:
        folder: Its folder.
        prompt: (1, tokens, width) embedding of the empty prompt.

    Raises:
        UserError: A part is missing, or its tensors do not fit; the part and the tensor are named.
    """
    root = Path(folder)
    interact, label = _config(root / "interact_net"), _config(root / "label_embed_net")
    unet, vae = _config(root / "unet_gen"), _config(root / "vae")
    scheduler = _config(root / "scheduler")
    guidance = _guidance_state(load_file(_weights(root / "interact_net")))
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    settings = RefinerConfig(
        codec="kl-vae",
        embedding="learned",
        window=interact["block_out_resolutions"][0] * stride,
        channels=unet["block_out_channels"],
        layers_per_block=unet["layers_per_block"],
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
        classes=label["num_classes"],
        bands=3,
        settings=settings.model_dump(),
        unet=_plain(unet),
        vae=_plain(vae),
        prompt_shape=list(prompt.shape[1:]),
    )
    assert refiner.prompt is not None
    refiner.prompt.copy_(prompt)
    _load(refiner.denoiser, load_file(_weights(root / "unet_gen")), root / "unet_gen")
    _load(refiner.encoder.unet, load_file(_weights(root / "unet_ori")), root / "unet_ori")  # type: ignore[arg-type]
    _load(refiner.codec.vae, load_file(_weights(root / "vae")), root / "vae")  # type: ignore[arg-type,union-attr]
    _load(refiner.guidance, guidance, root / "interact_net")
    embedding = load_file(_weights(root / "label_embed_net"))
    names = {"embedding_table.weight": "table.weight"} | {
        f"embedding_conv.{i}.{p}": f"decoder.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")
    }
    _load(refiner.embedding, {names.get(k, k): v for k, v in embedding.items()}, root / "label_embed_net")
    return refiner.eval()


def _guidance_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    mid = 1 + max(int(m.group(1)) for k in state if (m := re.match(r"attn_blocks_down\.(\d+)\.", k)))
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, ours in _BLOCK_NAMES:
            name = re.sub(pattern, ours.replace("{mid}", str(mid)), name)
        packed = re.match(r"(.*layers\.\d+)\.attn\.in_proj_(weight|bias)$", name)
        if packed:
            for part, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{packed.group(1)}.attention.{part}.{packed.group(2)}"] = chunk.contiguous()
        else:
            renamed[name] = value
    return renamed


def _load(module: nn.Module, state: dict[str, Tensor], part: Path) -> None:
    own = module.state_dict()
    for name, value in own.items():
        if name not in state:
            raise UserError(f"{part}: tensor {name} is missing. Expected a folder written by the authors' code")
        if state[name].shape != value.shape:
            raise UserError(
                f"{part}: {name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}. Do the parts of "
                "this folder belong together?"
            )
    module.load_state_dict({name: state[name] for name in own})


def _weights(part: Path) -> Path:
    path = part / _WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: no such file. {_EXPECTED}")
    return path


def _config(part: Path) -> dict[str, Any]:
    files = sorted(part.glob("*config.json"))
    if not files:
        raise UserError(f"{part}: no config.json. {_EXPECTED}")
    return json.loads(files[0].read_text())


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if not k.startswith("_")}


def _prediction(name: str) -> Any:
    return {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}[name]
