"""The denoising steps of a map as they happen, as small images."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from idgbr.config.models import SamplerConfig
from idgbr.raster.encoding import palette_png
from serve_apps.assembly import Assembly, Maps, blend
from serve_apps.messages import Predicted

MAX_PICTURE_PX = 384
"""Pixels of the longer side of a picture."""


async def step_lines(
    assembly: Assembly, maps: Maps, sampler: SamplerConfig, calls: int, threaded: Callable[..., Any]
) -> AsyncIterator[dict[str, Any]]:
    """One object for the coarse map, then one for every denoising step of every call; fills `maps` on the way.

    Windows are predicted in calls, several at a time; an image shows the present state of every window.

    Args:
        assembly: The image.
        maps: With the coarse planes; gets the refined map.
        sampler: Steps, samples and the rest.
        calls: How many calls are in flight.
        threaded: Runs a function in a thread.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    refinement = assembly.refinement(maps, sampler)
    chunks = refinement.chunks
    planes = ray.put(maps.planes)
    canvas = maps.planes[0].copy()
    colours = [c.colour for c in assembly.spec.classes]
    yield {"type": "coarse", "progress": 0.0, "png": await threaded(_picture, canvas, colours)}

    events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    free = asyncio.Semaphore(calls)

    async def follow(number: int, corners: NDArray) -> None:
        async with free:
            stream = assembly.refine_steps(corners, planes, sampler)
            try:
                async for event in stream:
                    events.put_nowait((number, event))
            except asyncio.CancelledError:
                stream.cancel()
                raise
            except Exception as error:
                events.put_nowait((number, error))

    tasks = [asyncio.create_task(follow(i, corners)) for i, corners in enumerate(chunks)]
    done: dict[int, NDArray] = {}
    shares = np.zeros(len(chunks))
    blended = 0
    try:
        while blended < len(chunks):
            number, event = await events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Predicted):
                assembly.finished("refiner", len(event.values))
                done[number] = event.values
                while blended in done:
                    await threaded(blend, refinement.windows, done.pop(blended))
                    blended += 1
                continue
            sample, step, ids = event
            shares[number] = (sample + min(1.0, (step + 1) / sampler.steps)) / sampler.samples
            _paint(canvas, chunks[number], ids, assembly.picture.valid)
            yield {
                "type": "step",
                "sample": sample + 1,
                "samples": sampler.samples,
                "step": step + 1,
                "steps": sampler.steps,
                "part": number + 1,
                "parts": len(chunks),
                "progress": round(float(shares.mean()), 4),
                "png": await threaded(_picture, canvas, colours),
            }
    finally:
        for task in tasks:
            task.cancel()
    await threaded(refinement.windows.finish)
    await threaded(refinement.finish)
    maps.milliseconds["refine"] = (loop.time() - began) * 1e3


def _paint(canvas: NDArray[np.uint8], corners: NDArray, ids: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
    height, width = canvas.shape
    for (row, col), one in zip(corners.tolist(), ids, strict=True):
        rows = slice(max(row, 0), min(row + one.shape[0], height))
        cols = slice(max(col, 0), min(col + one.shape[1], width))
        part = one[rows.start - row : rows.stop - row, cols.start - col : cols.stop - col]
        canvas[rows, cols] = np.where(valid[rows, cols], part, canvas[rows, cols])


def _picture(ids: NDArray[np.uint8], colours: list[str]) -> str:
    step = max(1, -(-max(ids.shape) // MAX_PICTURE_PX))
    return base64.b64encode(palette_png(np.ascontiguousarray(ids[::step, ::step]), colours)).decode()
