"""Versions side by side: the new one takes over once it is loaded, the old one stays while it is needed."""

from __future__ import annotations

import asyncio

import pytest

from idgbr.errors import UserError
from serve_apps.model_shelf import ModelShelf, ModelUnavailable, ShelfStatus


class Loader:
    """Loads names; `bad` ones fail, others wait for `gates` of their name."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.away: dict[str, int] = {}
        """How often a name fails before it loads."""

    async def __call__(self, address: str) -> str:
        if gate := self.gates.get(address):
            await gate.wait()
        if "bad" in address:
            raise UserError(f"{address}: damaged")
        if address in self.away:
            self.away[address] -= 1
            if self.away[address] >= 0:
                raise ConnectionError(f"{address}: the store\nis away")
        self.loaded.append(address)
        return address.upper()


def shelf(loader: Loader, drain_s: float = 0.0, retry_s: float = 60.0) -> ModelShelf[str]:
    def changed(status: ShelfStatus) -> None:
        assert len(status.held) <= 2

    return ModelShelf(loader, drain_s, changed, retry_s)


def test_a_pinned_request_keeps_its_version() -> None:
    async def run() -> None:
        loader = Loader()
        versions = shelf(loader)
        await versions.activate({"model": "one"})
        async with versions.lease() as (address, model):
            assert (address, model) == ("one", "ONE")
            await versions.activate({"model": "two"})
            assert versions.status.active == "two" and versions.status.held == ("one", "two")
            async with versions.lease("one") as (_, again):
                assert again == "ONE"
        await asyncio.sleep(0.05)
        assert versions.status.held == ("two",)
        async with versions.lease("one") as (_, late):  # a straggler of another replica
            assert late == "ONE"
        assert versions.status.active == "two" and loader.loaded == ["one", "two", "one"]

    asyncio.run(run())


def test_a_bad_version_changes_nothing() -> None:
    async def run() -> None:
        versions = shelf(Loader())
        await versions.activate({"model": "one"})
        await versions.activate({"model": "bad"})
        status = versions.status
        assert (status.active, status.desired) == ("one", "bad") and "damaged" in status.error
        with pytest.raises(ModelUnavailable, match="damaged"):
            async with versions.lease("bad"):
                pass
        await versions.activate({"modell": "x"})
        assert "models:/NAME/VERSION" in versions.status.error
        await versions.activate({"model": "two"})
        assert (versions.status.active, versions.status.error) == ("two", "")

    asyncio.run(run())


def test_a_version_that_did_not_load_is_tried_again_while_it_is_wanted() -> None:
    async def run() -> None:
        loader = Loader()
        loader.away = {"two": 3, "three": 1}
        versions = shelf(loader, retry_s=0.01)
        await versions.activate({"model": "one"})
        await versions.activate({"model": "two"})
        assert versions.status.active == "one"
        assert versions.status.error == "ConnectionError: two: the store is away"
        while versions.status.active == "one":
            await asyncio.sleep(0.01)
        assert (versions.status.active, versions.status.error, loader.away["two"]) == ("two", "", -1)
        # A version that was replaced in the meantime is not retried.
        await versions.activate({"model": "three"})
        await versions.activate({"model": "four"})
        await asyncio.sleep(0.1)
        assert versions.status.active == "four" and loader.loaded == ["one", "two", "four"]

    asyncio.run(run())


def test_a_third_version_waits_for_room() -> None:
    async def run() -> None:
        versions = shelf(Loader(), drain_s=60)
        await versions.activate({"model": "one"})
        async with versions.lease():
            await versions.activate({"model": "two"})
            third = asyncio.create_task(versions.activate({"model": "three"}))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not third.done() and versions.status.active == "two"
        await third
        assert versions.status.active == "three" and "one" not in versions.status.held

    asyncio.run(run())


def test_one_load_for_many_requests_and_the_last_wish_wins() -> None:
    async def run() -> None:
        loader = Loader()
        loader.gates["one"] = asyncio.Event()
        versions = shelf(loader)
        first = asyncio.create_task(versions.activate({"model": "one"}))
        await asyncio.sleep(0)
        second = asyncio.create_task(versions.activate({"model": "two"}))
        await second
        loader.gates["one"].set()
        await first
        assert versions.status.active == "two" and loader.loaded == ["two", "one"]

    asyncio.run(run())


def test_a_replica_that_starts_anew_falls_back_on_the_version_that_served() -> None:
    async def run() -> None:
        versions = shelf(Loader())
        await versions.activate({"model": "bad", "fallback": "one"})
        assert (versions.status.desired, versions.status.active) == ("bad", "one")
        assert "damaged" in versions.status.error
        await versions.activate({"model": "two", "fallback": "one"})
        assert versions.status.active == "two" and not versions.status.error
        # A replica that serves something has no need of it.
        await versions.activate({"model": "bad", "fallback": "one"})
        assert versions.status.active == "two"

    asyncio.run(run())
