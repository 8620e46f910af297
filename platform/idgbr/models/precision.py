"""The arithmetic a device is good at."""

from __future__ import annotations

import torch

from idgbr.config.node import Precision

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself. Processors that only emulate it take many times longer."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The autocast context of a precision; `auto` is bf16 where the device computes in it, fp32 elsewhere."""
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "fp32"
    dtype = _TYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
