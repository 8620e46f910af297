"""A job's processes seen from outside: memory and processor seconds of its driver and of all that it started."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

Role = Literal["driver", "worker", "Ray"]
"""The job's own process, Ray's workers (actors, tasks and idle ones), Ray's own processes (raylet, GCS, ...)."""


@dataclass
class Process:
    """What was seen of a process.

    Attributes:
        role: What it is to the job.
        titles: What it called itself, in order, without arguments.
        peak: Most bytes of PSS: private memory, and of what it shares its part.
        held: Likewise without mapped files such as libraries: what counts of them depends on how many others map them,
            and the kernel can drop them.
        seconds: Processor seconds of all its threads while it was watched.
    """

    role: Role
    titles: list[str]
    peak: int = 0
    held: int = 0
    seconds: float = 0.0
    before: float = 0.0
    """Processor seconds that it had used before."""


class Watch:
    """Looks at a process and its descendants, every so often, while its body runs.

    Attributes:
        found: Everything seen, by process id.
        peak: Most bytes of PSS of driver and workers together, at one time.
    """

    def __init__(self, root: int, every: float = 1.0, memory: bool = True) -> None:
        """Watches nothing before it is entered.

        Args:
            root: Process id of the driver.
            every: Seconds between looks; one costs some milliseconds a process, most of them for its memory.
            memory: Whether to look at memory too.
        """
        self._root, self._every, self._memory = root, every, memory
        self.found: dict[int, Process] = {}
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.look()
        for process in self.found.values():
            process.before, process.seconds = process.seconds, 0.0
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def of(self, role: Role) -> list[Process]:
        """The processes of a role."""
        return [process for process in self.found.values() if process.role == role]

    def called(self, name: str) -> list[Process]:
        """The processes whose program has a name."""
        return [process for process in self.found.values() if name in map(os.path.basename, process.titles)]

    def _watch(self) -> None:
        while True:
            last = self._over.wait(self._every)
            self.look()
            if last:
                return

    def _role(self, pid: int, title: str) -> Role:
        return "driver" if pid == self._root else "worker" if title.startswith("ray::") else "Ray"

    def look(self) -> None:
        """Looks once more."""
        together = 0
        for pid in _family(self._root):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode().strip()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                role = self._role(pid, title)
                pss, held = _pss(pid) if self._memory else (0, 0)
            except (OSError, ValueError):  # it has just ended
                continue
            seen = self.found.setdefault(pid, Process(role, []))
            seen.role = role  # a worker has its title only once it is up
            if title not in seen.titles:
                seen.titles.append(title)
            seen.peak, seen.held = max(seen.peak, pss), max(seen.held, held)
            seen.seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") - seen.before
            together += pss if role != "Ray" else 0
        self.peak = max(self.peak, together)


def _pss(pid: int) -> tuple[int, int]:
    """All of it, and what no file backs."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}
    return sizes["Pss"], sizes["Pss_Anon"] + sizes["Pss_Shmem"]


def _family(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for pid in found:  # grows as it goes
        found.extend(children.get(pid, []))
    return found
