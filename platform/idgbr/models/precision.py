"""Choice of the floating-point precision for a device."""

from __future__ import annotations

import torch

from idgbr.config.node import Precision

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def computes_bf16(device: torch.device) -> bool:
    """Whether a device computes faster in bfloat16 than in float32.

    CPUs do if they have a matrix unit for it (AMX). With vector instructions only (avx512_bf16), the conversions take
    more time than is saved: the denoiser takes 1.5 times as long as in float32; emulation takes many times as long.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The autocast context of a precision; `auto`: bf16 on GPUs that compute in it and on CPUs with AMX, else fp32."""
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "fp32"
    dtype = _TYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
