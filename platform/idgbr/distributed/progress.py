"""Progress of a loop: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LINE_EVERY_S = 20.0


class Progress:
    """Shows how far a loop of `total` items is, and how long it still takes."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._started = self._said = time.monotonic()
        self._first = (0.0, 0)  # when the first items were there, and how many: until then workers started
        self._bar: RichProgress | None = None
        if sys.stdout.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                console=Console(),
            )  # fmt: skip
            self._task = self._bar.add_task(title, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._line(time.monotonic())

    def advance(self, count: int) -> None:
        """Count `count` more items as done."""
        now = time.monotonic()
        if not self._done:
            self._first = (now, count)
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._task, count)
        elif now - self._said > LINE_EVERY_S:
            self._said = now
            self._line(now)

    def _line(self, now: float) -> None:
        since, before = self._first
        ending = ""
        if self._done == self._total:
            ending = f", in {now - self._started:.0f} s"
        elif self._done > before:
            ending = f", {(now - since) / (self._done - before) * (self._total - self._done):.0f} s left"
        print(f"{self._title}: {self._done} of {self._total}{ending}", flush=True)


@contextmanager
def following(path: Path) -> Iterator[None]:
    """Print the lines that another process adds to a file while the body runs; Ray's own echo adds names and noise."""
    path.touch()
    over = threading.Event()

    def follow() -> None:
        with path.open(encoding="utf-8") as file:
            file.seek(0, 2)
            while True:
                last = over.wait(1.0)
                if text := file.read():
                    print(text, end="", flush=True)
                if last:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
