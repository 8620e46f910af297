"""Deployments with nothing in them, chained as the service's are: what Ray Serve itself takes for a request.

Serve pickles the door's class, and FastAPI resolves annotations after that: hence no `from __future__ import
annotations`.
"""

from typing import Any, cast

import numpy as np
import ray
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray
from ray import serve
from ray.serve import Deployment
from ray.serve.handle import DeploymentHandle

_door = FastAPI()


@serve.deployment
class _First:
    """Where stage 1 is: gives probabilities of the size of its windows."""

    async def predict(self, image: NDArray, shape: tuple[int, ...]) -> NDArray:
        return np.zeros(shape, np.float16)


@serve.deployment
class _Second:
    """Where stage 2 is: takes what stage 1 gave."""

    async def refine(self, image: NDArray, coarse: NDArray, shape: tuple[int, ...]) -> NDArray:
        return np.zeros(shape, np.float16)


@serve.deployment
class _Scenes:
    """Where the scene worker is: puts the pixels down once, and calls both without awaiting in between."""

    def __init__(self, first: DeploymentHandle, second: DeploymentHandle, shapes: tuple[tuple[int, ...], ...]) -> None:
        self._first, self._second, self._shapes = first, second, shapes

    async def make(self, body: bytes) -> bytes:
        image = ray.put(np.zeros(self._shapes[0], np.uint8))
        coarse = self._first.predict.remote(image, self._shapes[1])
        refined = self._second.refine.remote(image, coarse, self._shapes[2])
        await coarse
        await refined
        return body[:1000]


@serve.deployment
@serve.ingress(_door)
class _Door:
    """Where the gateway is."""

    def __init__(self, scenes: DeploymentHandle) -> None:
        self._scenes = scenes

    @_door.post("/")
    async def post(self, request: Request) -> Response:
        """Body in, some bytes out."""
        return Response(await self._scenes.make.remote(await request.body()))


def empty_service(image: tuple[int, ...], coarse: tuple[int, ...], refined: tuple[int, ...]) -> serve.Application:
    """The chain, for an image of a shape and results of these shapes."""
    first, second, scenes, door = (
        cast(Deployment, one).options(ray_actor_options={"num_cpus": 0.05}) for one in (_First, _Second, _Scenes, _Door)
    )
    worker: Any = scenes.bind(first.bind(), second.bind(), (image, coarse, refined))
    return door.bind(worker)
