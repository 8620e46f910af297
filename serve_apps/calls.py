"""Calls to other deployments: several in flight, cancelled with the request, repeated when a replica ends."""

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
"""Tries of a call; a replica that ends in the middle of it costs one."""


async def in_order(calls: Sequence[Callable[[], Awaitable[T]]], ahead: int) -> AsyncIterator[T]:
    """Results in the order of the calls, `ahead` of which are in flight at a time."""
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
    """Waits for a call; where the waiting is cancelled, cancels the call in its replica too."""
    try:
        return await call
    except asyncio.CancelledError:
        if isinstance(call, DeploymentResponse):
            call.cancel()
        raise


async def retried(call: Callable[[], Awaitable[T]], tries: int = TRIES) -> T:
    """A call, made again where its replica died: predicting windows has no side effects."""
    for left in range(tries - 1, -1, -1):
        try:
            return await call()
        except Exception as error:
            if not left or not replica_lost(error):
                raise
    raise AssertionError("at least one try")


async def every_replica(handle: DeploymentHandle, method: str) -> list[Any]:
    """The answer of each running replica; where none runs, of the one that starts for the call.

    Raises:
        Exception: raised by the method, or no replica lived to answer.
    """
    try:
        answers = await handle.broadcast(method).results_async(return_exceptions=True)
    except DeploymentUnavailableError:
        return [await getattr(handle, method).remote()]
    statuses = [answer for answer in answers if not isinstance(answer, BaseException)]
    faults = [answer for answer in answers if isinstance(answer, BaseException)]
    for fault in faults:
        # One that has just ended serves nothing.
        if not statuses or not replica_lost(fault):
            raise fault
    return statuses


def replica_lost(error: BaseException) -> bool:
    """Whether a call failed because a replica ended, not because of the request."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, RayActorError | ReplicaUnavailableError) or (
        isinstance(error, RayActorError | ReplicaUnavailableError)
    )
