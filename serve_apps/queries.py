"""Query parameters of the routes that make maps."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import QueryParams

from idgbr.raster.polygons import PolygonOptions
from serve_apps.messages import GEOJSON, GEOTIFF, MULTIPART, NDJSON, PNG, Output
from serve_apps.problems import ProblemError
from serve_apps.settings import LimitArgs

_TYPES = {"tiff": GEOTIFF, "png": PNG, "geojson": GEOJSON}


class CoarseQuery(BaseModel):
    """Parameters of /v1/coarse."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    min_area: float = Field(0.0, ge=0, le=1e9, allow_inf_nan=False, examples=[4.0])
    """GeoJSON: smallest polygon in square metres (pixels, without georeference); smaller ones join a neighbour."""
    simplify: float = Field(0.0, ge=0, le=1e4, allow_inf_nan=False, examples=[0.3])
    """GeoJSON: metres that an edge may move by, about (pixels, without georeference); 0 keeps the pixels' edges."""
    regularise: str = Field("", max_length=1000, examples=["building"])
    """GeoJSON: names of classes, with commas between, whose polygons get right angles."""

    def polygons(self) -> PolygonOptions:
        """How polygons differ from the map's pixels."""
        names = tuple(name.strip() for name in self.regularise.split(",") if name.strip())
        return PolygonOptions(self.min_area, self.simplify, names)


class RefineQuery(CoarseQuery):
    """Parameters of /v1/refine."""

    steps: int | None = Field(None, ge=1, examples=[4])
    """Denoising steps; default: the model's own."""
    samples: int | None = Field(None, ge=1, examples=[4])
    """Maps drawn and averaged; default: the model's own."""
    guidance: float | None = Field(None, ge=0, le=30, allow_inf_nan=False, examples=[1.0])
    """Classifier-free guidance scale; default: the model's own."""
    seed: int | None = Field(None, ge=0, lt=2**63, examples=[0])
    """The same seed gives the same map."""
    outputs: str | None = Field(None, pattern=r"^[a-z]+(,[a-z]+)*$", examples=["coarse,refined,uncertainty"])
    """Out of image (a preview, PNG only), coarse, refined, uncertainty. Default: refined; with multipart and in streams
    the last three."""

    def sampler(self, limits: LimitArgs) -> dict[str, Any]:
        """Keys of the sampler that the request sets.

        Raises:
            ProblemError: 422, more than is allowed.
        """
        for name, maximum in (("steps", limits.steps), ("samples", limits.samples)):
            value = getattr(self, name)
            if value is not None and value > maximum:
                raise ProblemError.of(422, "Invalid parameters", f"{name}: {value}; at most {maximum} are allowed here")
        return self.model_dump(include={"steps", "samples", "guidance", "seed"}, exclude_none=True)

    def requested(self, default: tuple[Output, ...]) -> tuple[Output, ...]:
        """The outputs that the request names."""
        if self.outputs is None:
            return default
        known: dict[str, Output] = {name: name for name in ("image", "coarse", "refined", "uncertainty")}
        names = list(dict.fromkeys(self.outputs.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ProblemError.of(422, "Invalid parameters", f"outputs: {unknown[0]!r}; expected {', '.join(known)}")
        return tuple(known[name] for name in names)


class StreamQuery(RefineQuery):
    """Parameters of /v1/refine/stream."""

    formats: str = Field("png", pattern=r"^(tiff|png|geojson)(,(tiff|png|geojson))*$", examples=["png,tiff,geojson"])
    """Types of the outputs in the last line, base64."""

    def media(self) -> tuple[str, ...]:
        """The types, as media types."""
        return tuple(dict.fromkeys(_TYPES[name] for name in self.formats.split(",")))


def check_unique(query: QueryParams) -> None:
    """Refuses a parameter that is sent more than once: which of its values counts would be a guess.

    Raises:
        ProblemError: 422.
    """
    names = [name for name, _ in query.multi_items()]
    for name in names:
        if names.count(name) > 1:
            values = ", ".join(query.getlist(name))[:100]
            raise ProblemError.of(422, "Invalid parameters", f"{name}: sent {names.count(name)} times ({values})")


def check_fits(outputs: tuple[Output, ...], media: str) -> None:
    """Refuses outputs the type of the answer cannot hold.

    Raises:
        ProblemError: 422.
    """
    if media not in (MULTIPART, NDJSON) and len(outputs) != 1:
        raise ProblemError.of(422, "Invalid parameters", f"outputs: {len(outputs)} need Accept: {MULTIPART}")
    for name in outputs:
        if (name == "image" and media not in (PNG, NDJSON)) or (name == "uncertainty" and media == GEOJSON):
            raise ProblemError.of(422, "Invalid parameters", f"outputs: {name} cannot be sent as {media}")
