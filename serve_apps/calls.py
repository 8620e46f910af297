"""Calls to other deployments: some ahead of the others, cancelled when nobody waits, made again when a replica ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

T = TypeVar("T")

TRIES = 3
"""A replica that ends in the middle of a call costs a try; what it was asked is asked again."""


async def in_order(calls: Sequence[Callable[[], Awaitable[T]]], ahead: int) -> AsyncIterator[T]:
    """Results in the order of the calls, some of which run ahead."""
    waiting: deque[asyncio.Future[T]] = deque()
    rest = iter(calls)
    try:
        while True:
            while len(waiting) < ahead and (call := next(rest, None)) is not None:
                waiting.append(asyncio.ensure_future(cancelling(call())))
            if not waiting:
                return
            result = await waiting[0]
            waiting.popleft()
            yield result
    finally:
        for task in waiting:
            task.cancel()


async def cancelling(call: Awaitable[T]) -> T:
    """Waits for a call, and cancels it where it is running when nobody waits any more."""
    try:
        return await call
    except asyncio.CancelledError:
        if isinstance(call, DeploymentResponse):
            call.cancel()
        raise


async def retried(call: Callable[[], Awaitable[T]], tries: int = TRIES) -> T:
    """Windows are predicted without side effects, so that a call whose replica died is simply made again."""
    for left in range(tries - 1, -1, -1):
        try:
            return await call()
        except Exception as error:
            if not left or not replica_lost(error):
                raise
    raise AssertionError("at least one try")


async def every_replica(handle: DeploymentHandle, method: str) -> list[Any]:
    """What each running replica answers; where none runs, the one that starts for the call.

    Raises:
        Exception: what the method raised, or that no replica lived to answer.
    """
    try:
        answers = await handle.broadcast(method).results_async(return_exceptions=True)
    except DeploymentUnavailableError:
        return [await getattr(handle, method).remote()]
    told = [answer for answer in answers if not isinstance(answer, BaseException)]
    faults = [answer for answer in answers if isinstance(answer, BaseException)]
    for fault in faults:
        # One that has just ended serves nothing.
        if not told or not replica_lost(fault):
            raise fault
    return told


def replica_lost(error: BaseException) -> bool:
    """Whether a call failed because a replica ended, not because of what it was asked."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, RayActorError | ReplicaUnavailableError) or (
        isinstance(error, RayActorError | ReplicaUnavailableError)
    )
