"""Measures the time that the parts of a training loop take."""

from __future__ import annotations

import time


class Pace:
    """Seconds by part in a round of steps. Time outside laps, such as measurements between rounds, is not included.

    Attributes:
        wall: Wall-clock seconds by part.
        processor: CPU seconds by part, over all threads of this process.
        steps: Number of steps of the round so far; the caller increments it.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a round."""
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.steps = 0
        self._last = time.perf_counter(), time.process_time()

    def lap(self, part: str) -> None:
        """Add the time since the last lap, or since the start of the round, to a part."""
        now = time.perf_counter(), time.process_time()
        for seconds, last, at in zip((self.wall, self.processor), self._last, now, strict=True):
            seconds[part] = seconds.get(part, 0.0) + at - last
        self._last = now

    def share(self, part: str) -> float:
        """A part's share of the round so far, by the wall clock."""
        return self.wall.get(part, 0.0) / (sum(self.wall.values()) or 1.0)

    def round(self) -> dict[str, float]:
        """The round so far: `steps`, wall-clock seconds by part, and `processor`, the CPU seconds of all parts."""
        return {"steps": self.steps, "processor": sum(self.processor.values()), **self.wall}
