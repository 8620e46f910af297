"""Reads each raster it is named as the platform does, and says on one line of JSON how that ended.

Each is read in a process of its own, forked from this one, with limits on processor time and address space: what a file
does to its reader (a crash, a hang, gigabytes) is seen from here.

    python read_hostile.py CPU_SECONDS < list-of-paths
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from idgbr.config.data import ClassSpec, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.labels import read_label
from idgbr.raster.scene import Scene

MORE_ADDRESS_SPACE = 3 * 2**30
CLASSES = [ClassSpec(name=str(i), colour=f"#{i:06x}") for i in range(200)]


def main(cpu_seconds: int) -> None:
    """Goes through the paths on standard input."""
    for line in sys.stdin:
        path = line.rstrip("\n")
        before = _status("VmRSS")
        child = os.fork()
        if child == 0:
            size = _status("VmSize") + MORE_ADDRESS_SPACE
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
            # Processor time, not time: the machine may be busy.
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            ends = [_ended(use, path) for use in (check, look, window, resampled, label)]
            os.write(1, (json.dumps({"path": path, "ends": ends}) + "\n").encode())
            os._exit(0)
        _, status, usage = os.wait4(child, 0)
        said = {"path": path, "status": os.waitstatus_to_exitcode(status), "grown": usage.ru_maxrss * 1024 - before}
        os.write(1, (json.dumps(said) + "\n").encode())


def check(path: str) -> None:
    """What every job does first."""
    Scene(path).check()


def look(path: str) -> None:
    """Size, place and kind."""
    scene = Scene(path)
    scene.profile()
    scene.resolution()
    scene.grid().same_as(scene.crop(Window(0, 0, 8, 8)).grid())


def window(path: str) -> None:
    """Windows inside, across the far corner, and outside."""
    scene = Scene(path)
    grid = scene.grid()
    for row, col in ((0, 0), (grid.height // 2, grid.width // 3), (grid.height - 7, grid.width - 9), (-99, -99)):
        pixels, valid = scene.read(Window(row, col, 40, 40))
        assert pixels.shape[1:] == valid.shape == (40, 40)


def resampled(path: str) -> None:
    """At another scale."""
    scene = Scene(path, gsd=1.0, resample_to=1.7)
    scene.read(Window(0, 0, 24, 24))


def label(path: str) -> None:
    """As a label of class ids on itself."""
    read_label(path, Scene(path, bands=(1,)), CLASSES, LabelConfig(), Window(0, 0, 32, 32))


def _ended(use: Callable[[str], None], path: str) -> str:
    try:
        use(path)
    except UserError as error:
        said = str(error)
        if Path(path).name not in said or len(said) < 40:
            return f"{use.__name__}: unclear: {said}"
        return "refused"
    except BaseException as error:
        return f"{use.__name__}: {type(error).__name__}: {error}"
    return "read"


def _status(key: str) -> int:
    """A figure of this process out of /proc, in bytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]))
