"""Checks before stage 1 whether the networks of an experiment can be built and trained.

The networks are built on the meta device, whose tensors have shapes but no memory, and run once on windows of the sizes
that training and inference use.
"""

from __future__ import annotations

import importlib.util

import timm
import torch

from idgbr.config.training import StageTraining
from idgbr.config.tree import Experiment
from idgbr.errors import UserError
from idgbr.models.coarse import build_coarse, padded_logits
from idgbr.models.condition_encoder import FrozenImageEncoder
from idgbr.models.pretrained import HUB, NONE
from idgbr.models.refiner import Refiner
from idgbr.training.alignment import BACKBONE

_GROUPS = 16
"""Number of groups of the denoiser's group norm."""


def refuse_infeasible(config: Experiment) -> None:
    """Refuses an experiment that would fail during training, or after stage 1.

    Raises:
        UserError: names the key, the value found and the values allowed.
    """
    _check_arithmetic("coarse", config.training.coarse, config)
    _check_arithmetic("refiner", config.training.refiner, config)
    _check_refiner_numbers(config)
    _check_weights(config)
    with torch.device("meta"):
        _run_coarse(config)
        _run_refiner(config)


def _check_arithmetic(stage: str, training: StageTraining, config: Experiment) -> None:
    gpu = config.resources.gpus_per_worker > 0
    if training.precision == "fp16" and not gpu:
        raise UserError(
            f"training.{stage}.precision: found fp16 with resources.gpus_per_worker 0; fp16 needs a GPU, "
            "use bf16 or fp32 on CPUs"
        )
    if training.optimiser == "adamw8bit" and not (gpu and importlib.util.find_spec("bitsandbytes")):
        raise UserError(
            f"training.{stage}.optimiser: found adamw8bit, which needs a GPU (resources.gpus_per_worker) and the "
            "package bitsandbytes; use adamw"
        )
    teacher = config.training.refiner.alignment.teacher
    if teacher not in ("", BACKBONE) and not timm.is_model(teacher.partition(".")[0]):
        raise UserError(
            f"training.refiner.alignment.teacher: timm has no model {teacher!r}; expected one of its ViTs, or "
            f"{BACKBONE}"
        )


def _check_refiner_numbers(config: Experiment) -> None:
    s = config.refiner
    if s.codec != "lossless":
        return  # channels are those of Stable Diffusion's UNet
    odd = [width for width in s.channels if width % _GROUPS]
    if odd or not s.channels:
        raise UserError(
            f"refiner.channels: found {s.channels}; expected multiples of {_GROUPS}, one a level, since group norm "
            f"divides them into {_GROUPS} groups"
        )
    if s.guidance_width % s.guidance_heads:
        raise UserError(
            f"refiner.guidance_heads: found {s.guidance_heads}; expected a divisor of refiner.guidance_width, "
            f"{s.guidance_width}"
        )
    multiple = s.patch * 2 ** (len(s.channels) - 1)
    if s.window % multiple:
        raise UserError(
            f"refiner.window: found {s.window}; expected a multiple of {multiple} (refiner.patch {s.patch}, halved "
            f"{len(s.channels) - 1} times by the levels of refiner.channels), such as {_nearest(s.window, multiple)}"
        )


def _check_weights(config: Experiment) -> None:
    """Loads the weights of the frozen encoder if this needs no access to the internet."""
    s = config.refiner
    if s.image_encoder and s.image_encoder_weights not in (HUB, NONE) and s.condition_encoder == "pyramid":
        try:
            FrozenImageEncoder(
                s.image_encoder, s.image_encoder_weights, s.image_encoder_levels, len(config.data.bands), True
            )
        except UserError as error:
            raise UserError(f"refiner.image_encoder_weights: {error}") from error
        except IndexError as error:
            raise UserError(
                f"refiner.image_encoder_levels: found {s.image_encoder_levels}; {s.image_encoder} has no such level"
            ) from error


def _run_coarse(config: Experiment) -> None:
    bands, classes, batch = len(config.data.bands), len(config.data.classes), config.training.coarse.batch
    per_worker = max(1, batch // min(batch, config.resources.train_workers) // config.training.coarse.accumulate)
    model = build_coarse(config.coarse, classes, bands, pretrained=False)
    for mode, number, window, key in (
        (True, per_worker, config.coarse.window, "coarse.window"),
        (False, 1, config.inference.coarse.window, "inference.coarse.window"),
    ):
        try:
            with torch.no_grad():
                padded_logits(model.train(mode), torch.zeros(number, bands, window, window))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{key} {window}: coarse.decoder {config.coarse.decoder!r} with coarse.encoder "
                f"{config.coarse.encoder!r} takes no {number} window(s) of that size ({_first_line(error)}); choose a "
                "larger window, more windows a worker (training.coarse.batch), or another decoder"
            ) from error


def _run_refiner(config: Experiment) -> None:
    s, bands, classes = config.refiner, len(config.data.bands), len(config.data.classes)
    try:
        refiner = Refiner(classes, bands, s.model_dump(), pretrained=False)
        with torch.no_grad():
            labels = torch.zeros(1, s.window, s.window, dtype=torch.long)
            coarse = labels if s.coarse_input == "ids" else torch.zeros(1, classes, *labels.shape[1:])
            guide = refiner.prepare(torch.zeros(1, bands, s.window, s.window), coarse)
            refiner(refiner.encode_labels(labels), torch.zeros((), dtype=torch.long), guide)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            f"refiner: its settings make no network that takes windows of refiner.window {s.window} px "
            f"({_first_line(error)}); compare channels, patch, window, image_encoder_levels and the guidance's width "
            "and heads with those of configs/demo.yaml"
        ) from error


def _nearest(value: int, multiple: int) -> int:
    return max(1, round(value / multiple)) * multiple


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
