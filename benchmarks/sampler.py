"""The plain schedule against ours: same random weights, same noise, denoising loop only.

python jobs/benchmark.py sampler
python jobs/benchmark.py sampler --channels 320,640,1280,1280 --latents 64 --device cuda

Seconds are of one run on one machine, processor time or a GPU's wall clock: their ratio is what counts. Both
are given image and coarse latents; what ours prepares once is part of its time. FLOP (multiply-add = 2) are counted on
the meta device, also at the paper's scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pydantic import Field

from idgbr.cli import JobFlags
from idgbr.errors import UserError


class Flags(JobFlags):
    """Flags of the sampler's benchmark."""

    channels: list[int] = [80, 160, 320, 320]
    """Denoiser channels per level; the default has more than 40 million parameters."""
    guidance_width: int = Field(128, ge=8, alias="guidance-width")
    """Attention width of a guidance block; the paper's is 512."""
    latents: int = Field(32, ge=8)
    """Side of the latents."""
    batch: int = Field(1, ge=1)
    """Tiles at once."""
    steps: int = Field(25, ge=1, le=500)
    """Steps of both."""
    guidance: float = 3.0
    """Classifier-free guidance scale of both."""
    also: list[str] = ["1x1", "1x4", "2x1", "4x1"]
    """Choices to time beside them, STEPSxSAMPLES, each without classifier-free guidance and with a prepared condition
    per sample, as samples that are turned have."""
    repeats: int = Field(2, ge=1)
    """Runs of each, in turn; the fastest counts."""
    device: str = "cpu"
    """torch device."""
    threads: int = Field(1, ge=1)
    """torch threads."""


def main(flags: Flags) -> dict[str, object]:
    """Times and counts."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from benchmarks._plain import plain_loop
    from idgbr.config.models import RefinerConfig, SamplerConfig
    from idgbr.models.sampler import follow
    from idgbr.models.schedule import Steps

    choices = [(f"{steps} steps x {samples}", steps, samples) for steps, samples in map(_choice, flags.also)]
    torch.set_num_threads(flags.threads)
    settings = RefinerConfig(**_RELEASED, window=8 * flags.latents, guidance_width=flags.guidance_width)
    refiner = _refiner(settings, flags.channels).to(flags.device).eval()
    shape = (flags.batch, refiner.latent_channels, flags.latents, flags.latents)
    image, coarse, noise = (torch.randn(shape, device=flags.device) for _ in range(3))
    released = SamplerConfig(steps=flags.steps, guidance=flags.guidance, spacing="leading", samples=1, dihedral=False)

    def ours(sampler: SamplerConfig) -> torch.Tensor:
        latents = noise
        for _ in range(sampler.samples):
            prepared = _prepared(refiner, image, coarse)
            latents, _ = follow(refiner, prepared, noise, Steps(settings, sampler, noise.device), sampler)
        return latents

    runs: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: plain_loop(refiner, image, coarse, noise, flags.steps, flags.guidance),
        "ours": lambda: ours(released),
    }
    for name, steps, samples in choices:
        fast = SamplerConfig(steps=steps, samples=samples, guidance=1.0)
        runs[name] = lambda fast=fast: ours(fast)  # type: ignore[misc]
    seconds, results = _time(runs, flags)
    difference = float((results["ours"] - results["plain"]).abs().max() / results["plain"].abs().max())
    here = _counted(settings, flags.channels, flags.latents, flags.steps, flags.guidance)
    paper_settings = RefinerConfig(**_RELEASED, window=512, guidance_width=512)
    paper = _counted(paper_settings, _PAPER_CHANNELS, 64, flags.steps, flags.guidance)

    size = sum(p.numel() for p in refiner.denoiser.parameters())
    table = Table(title=f"denoiser of {size / 1e6:.1f} M parameters, {flags.latents} x {flags.latents} latents")
    for heading in ("schedule", "seconds", "times faster", "TFLOP"):
        table.add_column(heading, justify="left" if heading == "schedule" else "right")
    for name, elapsed in seconds.items():
        flop = f"{here[name]:.3f}" if name in here else ""
        table.add_row(name, f"{elapsed:.2f}", f"{seconds['plain'] / elapsed:.2f}", flop)
    console = Console()
    console.print(table)
    console.print(f"largest difference of ours from plain, relative to the largest latent: {difference:.1e}")
    console.print(
        f"at the paper's scale, {flags.steps} steps: plain {paper['plain']:.1f} TFLOP, ours {paper['ours']:.1f}, "
        f"prepared once {paper['prepared']:.1f}"
    )
    return {
        "parameters": size,
        "seconds": {name: round(elapsed, 3) for name, elapsed in seconds.items()},
        "ratio": round(seconds["plain"] / seconds["ours"], 3),
        "difference": difference,
        "tflop": {name: round(flop, 4) for name, flop in here.items()},
        "paper_tflop": {name: round(flop, 2) for name, flop in paper.items()},
    }


_PAPER_CHANNELS = [320, 640, 1280, 1280]
_RELEASED: dict[str, Any] = {
    "codec": "kl-vae",
    "embedding": "learned",
    "prediction": "epsilon",
    "self_conditioning": False,
    "schedule": "scaled_linear",
    "condition_encoder": "unet",
    "image_encoder": "",
    "guidance_heads": 8,
}


def _choice(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f"--also: found {text!r}; expected STEPSxSAMPLES such as 2x4")
    return int(parts[0]), int(parts[1])


def _refiner(settings: Any, channels: list[int]) -> Any:
    """A refiner of random weights; its guidance net, which starts at zero, gets some, else there were no residuals."""
    import torch
    from torch import nn

    from idgbr.models.refiner import Refiner
    from idgbr.models.stable_diffusion import SD15_PROMPT, SD15_UNET, SD15_VAE

    torch.manual_seed(0)
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if all(c % g == 0 for c in channels))
    unet = {**SD15_UNET, "block_out_channels": channels, "norm_num_groups": groups}
    down, up = ["CrossAttnDownBlock2D"] * (len(channels) - 1), ["CrossAttnUpBlock2D"] * (len(channels) - 1)
    unet |= {"down_block_types": [*down, "DownBlock2D"], "up_block_types": ["UpBlock2D", *up]}
    vae = {**SD15_VAE, "block_out_channels": [4, 4, 4, 4], "norm_num_groups": 4, "layers_per_block": 1}
    refiner = Refiner(2, 3, settings.model_dump(), unet=unet, vae=vae, prompt_shape=SD15_PROMPT)
    for block in refiner.guidance.blocks:
        for layer in (block.fuse, block.to_residual):
            nn.init.normal_(layer.weight, std=0.02)
    return refiner


def _prepared(refiner: Any, image: Any, coarse: Any) -> Any:
    from idgbr.models.refiner import Guide

    prompt = refiner.prompt.expand(len(image), -1, -1)
    return Guide(refiner.guidance.prepare(*refiner.encoder(image, image, coarse, prompt)), None)


def _time(runs: dict[str, Callable[[], Any]], flags: Flags) -> tuple[dict[str, float], dict[str, Any]]:
    import torch

    def finish() -> None:
        if flags.device.startswith("cuda"):
            torch.cuda.synchronize()

    # On a processor its own time: a machine that others use as well makes the wall clock say anything.
    clock = time.perf_counter if flags.device.startswith("cuda") else time.process_time
    seconds: dict[str, float] = {}
    results: dict[str, Any] = {}
    with torch.inference_mode():
        if flags.device.startswith("cuda"):
            runs["ours"]()  # kernels are chosen on first use
        for _ in range(flags.repeats):
            for name, run in runs.items():
                finish()
                began = clock()
                results[name] = run()
                finish()
                seconds[name] = min(seconds.get(name, float("inf")), clock() - began)
    return seconds, results


def _counted(settings: Any, channels: list[int], side: int, steps: int, guidance: float) -> dict[str, float]:
    """TFLOP of the loops for one tile, counted on the meta device; a loop repeats one step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks._plain import plain_prediction

    def count(run: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() / 1e12

    with torch.device("meta"), torch.no_grad():
        refiner = _refiner(settings, channels)
        latents, timestep = torch.zeros(1, refiner.latent_channels, side, side), torch.zeros((), dtype=torch.long)
        prepared = _prepared(refiner, latents, latents)
        once = count(lambda: _prepared(refiner, latents, latents))
        step = count(lambda: refiner(latents, timestep, prepared, guidance=guidance))
        plain = count(lambda: plain_prediction(refiner, latents, latents, latents, timestep, guidance))
    return {"plain": steps * plain, "ours": steps * step + once, "prepared": once}
