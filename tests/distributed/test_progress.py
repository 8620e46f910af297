"""Lines of progress in a log."""

from __future__ import annotations

import pytest

from idgbr.distributed import progress
from idgbr.distributed.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the test sets it."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_starting_the_workers_is_not_taken_for_the_pace(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("maps", 121) as bar:
        clock[0] = 30.0  # workers started and loaded their models
        bar.advance(1)
        assert capsys.readouterr().out == "maps: 1 of 121\n"
        clock[0] = 55.0
        bar.advance(50)
        assert capsys.readouterr().out == "maps: 51 of 121, 35 s left\n"
        clock[0] = 90.0
        bar.advance(70)
    assert capsys.readouterr().out.splitlines()[-1] == "maps: 121 of 121, in 90 s"


def test_a_loop_of_nothing_ends(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("maps", 0):
        pass
    assert capsys.readouterr().out == "maps: 0 of 0, in 0 s\n"
