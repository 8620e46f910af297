"""Where the time of a loop's rounds goes."""

from __future__ import annotations

import time


class Pace:
    """Seconds of a round of steps by part; what is not lapped, such as measurements between rounds, does not count.

    Attributes:
        wall: Seconds of the wall clock by part.
        processor: Seconds of the processor by part, all threads of this process.
        steps: Steps of the round so far; whoever takes them counts.
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
        """Count the time since the last lap, or since the round's begin, to a part."""
        now = time.perf_counter(), time.process_time()
        for seconds, last, at in zip((self.wall, self.processor), self._last, now, strict=True):
            seconds[part] = seconds.get(part, 0.0) + at - last
        self._last = now

    def share(self, part: str) -> float:
        """A part's share of the round so far, by the wall clock."""
        return self.wall.get(part, 0.0) / (sum(self.wall.values()) or 1.0)

    def round(self) -> dict[str, float]:
        """The round so far: `steps`, seconds of the wall clock by part, and `processor`, those of all parts."""
        return {"steps": self.steps, "processor": sum(self.processor.values()), **self.wall}
