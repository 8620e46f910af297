"""Messages between deployments: a request for a map, windows, predictions, the map."""

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
    """Windows of an image to predict, the version of the model, and the sampler."""

    model: str
    """Address of the version the request is pinned to."""
    corners: NDArray[np.int64]
    """(N, 2) row and column of each window's first pixel."""
    size: int
    sampler: SamplerConfig | None = None


@dataclass(frozen=True)
class Predicted:
    """The answer of a stage.

    Attributes:
        values: (N, C, S, S) float16 class probabilities; the refiner appends its uncertainty as the last channel.
        waited_ms: in the replica's queue.
        ms: in the model.
    """

    values: NDArray[np.float16]
    waited_ms: float
    ms: float


@dataclass(frozen=True)
class MapRequest:
    """A request for a map.

    Attributes:
        id: of the request, for logs.
        stage: coarse stops after stage 1.
        image: the body, not decoded.
        coarse: the caller's own coarse map, not decoded.
        sampler: keys of the sampler to change.
        outputs: names of the maps, in the order of the answer.
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
        bands: bands of the file in the model's order, where the file does not name them; empty otherwise.
    """

    parts: tuple[tuple[str, str, bytes], ...]
    model: str
    windows: dict[str, int]
    milliseconds: dict[str, float]
    shares: dict[str, float]
    bands: str = ""
