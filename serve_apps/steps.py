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
from serve_apps.assembly import Assembly, Maps
from serve_apps.messages import Predicted

MAX_SIDE_PX = 384
"""Longer side of the image of a step."""


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
    plan = assembly.refiner_plan()
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

    tasks = [asyncio.create_task(follow(i, corners)) for i, corners in enumerate(plan.chunks)]
    blender, write = plan.blender(), assembly.refined_writer(maps)
    done: dict[int, NDArray] = {}
    shares = np.zeros(len(plan.chunks))
    blended = first = 0
    try:
        while blended < len(plan.chunks):
            number, event = await events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Predicted):
                assembly.finished("refiner", len(event.values))
                done[number] = event.values
                while blended in done:
                    values = done.pop(blended)
                    await assembly.blend_in(blender, plan.windows[first : first + len(values)], values, write)
                    blended, first = blended + 1, first + len(values)
                continue
            sample, step, ids = event
            shares[number] = (sample + min(1.0, (step + 1) / sampler.steps)) / sampler.samples
            _paint(canvas, plan.chunks[number], ids, assembly.picture.valid)
            yield {
                "type": "step",
                "sample": sample + 1,
                "samples": sampler.samples,
                "step": step + 1,
                "steps": sampler.steps,
                "part": number + 1,
                "parts": len(plan.chunks),
                "progress": round(float(shares.mean()), 4),
                "png": await threaded(_picture, canvas, colours),
            }
    finally:
        for task in tasks:
            task.cancel()
    await assembly.finish(blender, write)
    maps.windows["refiner"] = len(plan.windows)
    maps.milliseconds["refine"] = (loop.time() - began) * 1e3


def _paint(canvas: NDArray[np.uint8], corners: NDArray, ids: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
    height, width = canvas.shape
    for (row, col), one in zip(corners.tolist(), ids, strict=True):
        rows = slice(max(row, 0), min(row + one.shape[0], height))
        cols = slice(max(col, 0), min(col + one.shape[1], width))
        part = one[rows.start - row : rows.stop - row, cols.start - col : cols.stop - col]
        canvas[rows, cols] = np.where(valid[rows, cols], part, canvas[rows, cols])


def _picture(ids: NDArray[np.uint8], colours: list[str]) -> str:
    step = max(1, -(-max(ids.shape) // MAX_SIDE_PX))
    return base64.b64encode(palette_png(np.ascontiguousarray(ids[::step, ::step]), colours)).decode()
