"""What travels between deployments: a request for a map, windows, what was predicted, the map, or what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from idgbr.config.models import SamplerConfig
from idgbr.raster.polygons import AS_PIXELS, PolygonOptions

Output = Literal["image", "coarse", "refined", "uncertainty"]
GEOTIFF, PNG, GEOJSON = "image/tiff", "image/png", "application/geo+json"
MULTIPART, NDJSON, PROBLEM = "multipart/mixed", "application/x-ndjson", "application/problem+json"
MAP_TYPES = (GEOTIFF, PNG, GEOJSON, MULTIPART)


@dataclass(frozen=True)
class Windows:
    """Which windows of an image to predict, by which version of the model, and how."""

    model: str
    """Address of the version the request is pinned to."""
    corners: NDArray[np.int64]
    """(N, 2) row and column of each window's first pixel."""
    size: int
    sampler: SamplerConfig | None = None


@dataclass(frozen=True)
class Predicted:
    """What a stage gives back.

    Attributes:
        values: (N, C, S, S) float16: class probabilities, of the refiner with the uncertainty behind them.
        waited_ms: in the replica's queue.
        ms: in the model.
    """

    values: NDArray[np.float16]
    waited_ms: float
    ms: float


@dataclass(frozen=True)
class MapRequest:
    """A map that is asked for.

    Attributes:
        id: of the request, for logs.
        stage: coarse stops after stage 1.
        image: the body, not decoded.
        coarse: the caller's own coarse map, not decoded.
        sampler: keys of the sampler to change.
        outputs: what is wanted, in this order.
        media: the type of the answer, or the types of every output of a stream's result.
        polygons: how polygons differ from the map's pixels.
    """

    id: str
    stage: Literal["coarse", "refine"]
    image: bytes
    coarse: bytes | None
    sampler: dict[str, Any]
    outputs: tuple[Output, ...]
    media: tuple[str, ...]
    polygons: PolygonOptions = AS_PIXELS


@dataclass(frozen=True)
class MapReply:
    """A finished map.

    Attributes:
        parts: name, media type and bytes of each output.
        model: label of the version that made all of it.
        windows: predicted, by stage.
        milliseconds: by step of the work.
        shares: share of each class among the valid pixels.
    """

    parts: tuple[tuple[str, str, bytes], ...]
    model: str
    windows: dict[str, int]
    milliseconds: dict[str, float]
    shares: dict[str, float]


@dataclass(frozen=True)
class Problem:
    """Why there is no map, and what to do, after RFC 9457.

    Attributes:
        status: HTTP status.
        title: the kind of problem.
        detail: what was found, what was expected, the way out.
        retry_after: seconds after which another try makes sense; None where it does not.
    """

    status: int
    title: str
    detail: str
    retry_after: int | None = None


class ProblemError(Exception):
    """Raised where a request cannot go on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @classmethod
    def of(cls, status: int, title: str, detail: str, retry_after: int | None = None) -> ProblemError:
        return cls(Problem(status, title, detail, retry_after))
