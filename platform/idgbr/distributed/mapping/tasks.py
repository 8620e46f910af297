"""What mapping is made of: where windows are read from, where finished strips go, and the task of one scene."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from idgbr.distributed.mapping.unreadable import Unreadable
from idgbr.raster.grid import Grid, Window
from idgbr.raster.scene import SceneProfile


class Source(Protocol):
    """What windows are read from: a `Scene`, or a `Mosaic` of sheets."""

    def grid(self) -> Grid: ...

    def profile(self) -> SceneProfile: ...

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]: ...

    def unread(self, window: Window) -> str: ...


class Sink(Protocol):
    """What takes finished strips, in order from the top; as a context manager it commits the whole, or fails."""

    @property
    def done(self) -> int:
        """Rows it has already, from a run that was interrupted."""

    def write(self, row0: int, values: np.ndarray) -> None: ...


class OpenSink(Sink, AbstractContextManager[Sink], Protocol):
    """A sink that is entered before it is written to."""


@dataclass(frozen=True)
class SceneTask:
    """One scene to be predicted."""

    id: str
    image: Source
    sink: Callable[[], OpenSink]
    """The output. Its strips have the channels of the part's `predict`, then one that is 1 where valid."""
    coarse: Source | None = None
    """Refinement: the coarse raster on the image's grid: class ids, then (if any) probabilities times 255."""
    origin: tuple[int, int] = (0, 0)
    """Absolute ground pixel of the image's first pixel, which the noise is anchored to."""
    setting: int = 0
    """Refinement: which of the predictor's samplers it is refined with."""
    windows: tuple[Window, ...] = field(default=(), repr=False)
    """The windows that are left to do, by the inference plan."""
    unreadable: Unreadable | None = None
    """Where windows that cannot be read are noted, which become nodata; without it they end the job."""
