"""Versions of a model in one replica: the active one, and beside it an older or newer one while requests need it."""

from __future__ import annotations

import asyncio
import logging
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from ray.exceptions import RayTaskError

from idgbr.errors import UserError

LOG = logging.getLogger("ray.serve")
MAX_VERSIONS = 2
"""Versions held at a time: one that is loaded beside the active one replaces an older one."""
_MAX_RETRY_S = 300.0
"""Longest pause before a desired version that did not load is tried again."""

Model = TypeVar("Model")


class UserConfig(BaseModel):
    """The `user_config` of every deployment that knows a model: which one it should serve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """models:/NAME/VERSION, or a model folder. An alias would mean different versions to different replicas."""
    fallback: str = ""
    """The version that served before: a replica that starts anew serves it while the desired one does not load."""


@dataclass(frozen=True)
class ShelfStatus:
    """The versions a replica serves, should serve and holds, and why it does not serve the one it should."""

    desired: str
    active: str
    held: tuple[str, ...]
    error: str


@dataclass
class _Entry(Generic[Model]):
    model: Model
    leases: int = 0
    used: float = field(default_factory=time.monotonic)


class ModelUnavailable(UserError):
    """The version of a request cannot be served here; another replica, or a later try, may."""


def reason(error: BaseException) -> str:
    """An error in one line; of one that came from another replica, its cause there."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    text = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
    return textwrap.shorten(text, 500, placeholder=" ...")


class ModelShelf(Generic[Model]):
    """Loads versions, hands them out, and lets the old one go when its last request has ended.

    A desired version that does not load is tried again, ever more rarely: its store may have been away. Belongs to one
    event loop.

    Args:
        load: Loads and tests the model at an address; raises if it cannot be served.
        drain_s: How long a version that is no longer active is kept after its last use: no request that was pinned
            to it may live longer.
        changed: Called with the status whenever it changes.
        retry_s: A version that did not load is not tried again before that; each further pause is twice as long.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[Model]],
        drain_s: float,
        changed: Callable[[ShelfStatus], None],
        retry_s: float = 5.0,
    ) -> None:
        self._load, self._drain_s, self._changed, self._retry_s = load, drain_s, changed, retry_s
        self._held: dict[str, _Entry[Model]] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._released = asyncio.Condition()
        self._desired, self._active, self._error = "", "", ""
        self._background: set[asyncio.Task[None]] = set()
        self._retrying: asyncio.Task[None] | None = None

    @property
    def status(self) -> ShelfStatus:
        return ShelfStatus(self._desired, self._active, tuple(self._held), self._error)

    async def follow(self, user_config: dict[str, Any]) -> None:
        """For a deployment's `reconfigure`: at the start it waits for the model. Later it must not, since a replica
        gets no calls while `reconfigure` runs.
        """
        first = not self._desired
        task = asyncio.create_task(self.activate(user_config))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        if first:
            await task

    async def activate(self, config: Any) -> None:
        """Makes a version the active one, once it is loaded and tested; until then, and if it fails, the old one stays.

        Never raises: `status` holds the error.
        """
        try:
            checked = UserConfig.model_validate(config)
            address = checked.model
        except ValueError as error:
            self._error = f"user_config: {config!r}; expected {{'model': 'models:/NAME/VERSION'}} ({error})"
            self._report()
            return
        self._desired, self._error = address, ""
        self._failed.pop(address, None)
        if self._retrying is not None:
            self._retrying.cancel()
        self._report()
        if not await self._tried(address):
            if not self._active and checked.fallback:
                await self._fall_back(checked.fallback)
            if self._desired == address:
                self._retrying = asyncio.create_task(self._try_again(address))
        self._report()

    async def _tried(self, address: str) -> bool:
        try:
            await self._get(address)
        except Exception as error:
            if self._desired == address:
                self._error = reason(error)
            LOG.error("model %s is not served: %s", address, reason(error))
            return False
        return True

    async def _try_again(self, address: str) -> None:
        pause, loaded = self._retry_s, False
        while not loaded:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RETRY_S)
            loaded = await self._tried(address)
            self._report()

    async def _fall_back(self, address: str) -> None:
        try:
            await self._get(address)
        except Exception as error:
            LOG.error("nor is model %s: %s", address, reason(error))
        else:
            # Unless the desired one became active in the meantime.
            self._active = self._active or address

    @asynccontextmanager
    async def lease(self, address: str = "") -> AsyncIterator[tuple[str, Model]]:
        """A version for the time of a request, with its address; default: the active one.

        Raises:
            ModelUnavailable: it does not load.
        """
        version = address or self._active
        if not version:
            raise ModelUnavailable(self._error or "the model is still being loaded")
        entry = self._held.get(version)
        while entry is None:
            failed = self._failed.get(version)
            if failed is not None and time.monotonic() - failed[0] < self._retry_s:
                raise ModelUnavailable(failed[1])
            try:
                await self._get(version)
            except Exception as error:
                raise ModelUnavailable(reason(error)) from error
            entry = self._held.get(version)
        entry.leases += 1
        try:
            yield version, entry.model
        finally:
            entry.leases -= 1
            entry.used = time.monotonic()
            async with self._released:
                self._released.notify_all()
            self._drain_later()

    async def _get(self, address: str) -> None:
        if address not in self._held:
            task = self._loading.get(address)
            if task is None:
                task = self._loading[address] = asyncio.create_task(self._load_one(address))
            await asyncio.shield(task)
        if address == self._desired and self._active != address:
            self._active, self._error = address, ""
            LOG.info("model %s is active", address)
            self._report()
            self._drain_later()

    async def _load_one(self, address: str) -> None:
        try:
            await self._make_room()
            self._held[address] = _Entry(await self._load(address))
        except Exception as error:
            self._failed[address] = (time.monotonic(), reason(error))
            raise
        finally:
            del self._loading[address]
        self._report()

    async def _make_room(self) -> None:
        async with self._released:
            while len(self._held) + len(self._loading) > MAX_VERSIONS:
                idle = [key for key, entry in self._held.items() if key != self._active and not entry.leases]
                if idle:
                    del self._held[min(idle, key=lambda key: self._held[key].used)]
                else:
                    await self._released.wait()

    def _drain_later(self) -> None:
        if any(key != self._active for key in self._held):
            asyncio.get_running_loop().call_later(self._drain_s, self._drain)

    def _drain(self) -> None:
        now = time.monotonic()
        for key, entry in list(self._held.items()):
            if key not in (self._active, self._desired) and not entry.leases and now - entry.used >= self._drain_s:
                del self._held[key]
                LOG.info("model %s is no longer held", key)
        self._report()

    def _report(self) -> None:
        self._changed(self.status)
