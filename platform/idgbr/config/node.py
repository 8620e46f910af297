"""What every section of a configuration is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0.0, le=1.0)]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""auto: bf16 on GPUs that compute in it and on CPUs with AMX, else fp32."""


class Node(BaseModel):
    """A node of the tree: immutable, unknown keys refused, docstrings of the fields become their help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
