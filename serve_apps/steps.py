"""The denoising steps of a map as they happen, as small pictures."""

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

_LONGEST = 384
"""Pixels of the longer side of a picture."""


async def step_lines(
    assembly: Assembly, maps: Maps, sampler: SamplerConfig, calls: int, threaded: Callable[..., Any]
) -> AsyncIterator[dict[str, Any]]:
    """One object for the coarse map, then one for every denoising step of every call; fills `maps` on the way.

    Windows are worked on in calls, several at a time; a picture shows what every window looks like so far.

    Args:
        assembly: The image.
        maps: With the coarse planes; gets the refined map.
        sampler: How.
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
                async for told in stream:
                    events.put_nowait((number, told))
            except asyncio.CancelledError:
                stream.cancel()
                raise
            except Exception as error:
                events.put_nowait((number, error))

    tasks = [asyncio.create_task(follow(i, corners)) for i, corners in enumerate(plan.chunks)]
    blender, write = plan.blender(), assembly.refined_writer(maps)
    done: dict[int, NDArray] = {}
    shares = np.zeros(len(plan.chunks))
    blended = place = 0
    try:
        while blended < len(plan.chunks):
            number, told = await events.get()
            if isinstance(told, Exception):
                raise told
            if isinstance(told, Predicted):
                done[number] = told.values
                while blended in done:
                    values = done.pop(blended)
                    await assembly.blend_in(blender, plan.windows[place : place + len(values)], values, write)
                    blended, place = blended + 1, place + len(values)
                continue
            sample, step, ids = told
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
        place = slice(max(row, 0), min(row + one.shape[0], height)), slice(max(col, 0), min(col + one.shape[1], width))
        part = one[place[0].start - row : place[0].stop - row, place[1].start - col : place[1].stop - col]
        canvas[place] = np.where(valid[place], part, canvas[place])


def _picture(ids: NDArray[np.uint8], colours: list[str]) -> str:
    step = max(1, -(-max(ids.shape) // _LONGEST))
    return base64.b64encode(palette_png(np.ascontiguousarray(ids[::step, ::step]), colours)).decode()
