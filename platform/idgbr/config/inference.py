"""Section `inference`: how scenes are cut into windows."""

from __future__ import annotations

from pydantic import Field, model_validator

from idgbr.config.node import Node, Precision


class WindowsConfig(Node):
    """How a scene is cut for one stage."""

    window: int = Field(256, ge=32)
    """Inference window in pixels."""
    overlap: int = Field(64, ge=0)
    """Pixels shared by neighbouring windows, blended."""
    batch: int = Field(4, ge=1)
    """Windows predicted at once."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> WindowsConfig:
        if self.overlap * 2 > self.window:
            raise ValueError(f"overlap {self.overlap} must be at most half of window {self.window}")
        return self


class CoarseWindows(WindowsConfig):
    """Windows of stage 1, which are large because it needs context."""

    window: int = Field(384, ge=32)
    """Inference window in pixels."""
    batch: int = Field(2, ge=1)
    """Windows predicted at once."""


class RefinerWindows(WindowsConfig):
    """Windows of stage 2: small, since it needs only the surroundings of a boundary and attention is costly."""

    window: int = Field(128, ge=32)
    """Inference window in pixels."""
    overlap: int = Field(32, ge=0)
    """Pixels shared by neighbouring windows, blended."""
    batch: int = Field(8, ge=1)
    """Windows predicted at once."""


class InferenceConfig(Node):
    coarse: CoarseWindows = CoarseWindows()
    refiner: RefinerWindows = RefinerWindows()
    precision: Precision = "auto"
    """Arithmetic of both stages; auto: bf16 on GPUs that compute in it and on CPUs with AMX, else fp32."""
