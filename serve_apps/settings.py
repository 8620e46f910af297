"""What can be set about the service; unknown keys are refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from idgbr.config.node import Node


class DeploymentArgs(Node):
    """Replicas of one deployment, and what each of them takes."""

    min_replicas: int = Field(1, ge=0)
    """Replicas that are always there; 0 lets an idle deployment end, and its next request wait for it to start."""
    max_replicas: int = Field(2, ge=1)
    target_ongoing_requests: float = Field(2.0, gt=0)
    """Calls in flight per replica, queued ones included, that autoscaling aims at."""
    upscale_delay_s: float = Field(5.0, ge=0)
    """How long there must be more than that before replicas are added."""
    downscale_delay_s: float = Field(120.0, ge=0)
    """How long there must be less before replicas end."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs of a replica, as Ray counts them."""
    max_ongoing_requests: int = Field(16, ge=1)
    """Calls a replica accepts at a time."""
    max_queued_requests: int = Field(128, ge=-1)
    """Calls that wait for a replica, per caller, before more are turned away; -1 is no limit."""

    @model_validator(mode="after")
    def _ordered(self) -> DeploymentArgs:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self


class StageArgs(DeploymentArgs):
    """A deployment that holds a model."""

    num_gpus: float = Field(0.0, ge=0)
    """GPUs of a replica; fractions share a device."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where the replica sees a device."""
    threads: int = Field(1, ge=1)
    """torch threads of a replica."""
    batch: int = Field(16, ge=1)
    """Most windows that are predicted at once, those of several requests together."""
    batch_wait_s: float = Field(0.0, ge=0)
    """How long a batch that is not full waits for more; 0 takes what is queued, so that an idle replica never waits."""


class GatewayArgs(DeploymentArgs):
    """The gateway, which holds no model."""

    num_cpus: float = Field(0.25, ge=0)
    target_ongoing_requests: float = Field(32.0, gt=0)
    max_ongoing_requests: int = Field(64, ge=1)
    max_queued_requests: int = Field(64, ge=-1)


class SceneArgs(DeploymentArgs):
    """The workers that decode, cut, blend and encode."""

    num_cpus: float = Field(0.5, ge=0)
    target_ongoing_requests: float = Field(4.0, gt=0)
    threads: int = Field(2, ge=1)
    """Threads of a replica for codecs and blending."""
    calls: int = Field(4, ge=1)
    """Calls to a stage that one request keeps in flight."""


class LimitArgs(Node):
    """What a request may ask for."""

    body_mb: float = Field(64.0, gt=0)
    """Body, in millions of bytes."""
    pixels: int = Field(16 * 2**20, ge=1)
    """Rows times columns of an image, checked before it is decoded."""
    bands: int = Field(16, ge=1)
    steps: int = Field(50, ge=1)
    samples: int = Field(16, ge=1)
    body_s: float = Field(30.0, gt=0)
    """How long a body may take to arrive, in seconds."""
    request_s: float = Field(120.0, gt=0)
    """How long a map may take after that, in seconds."""


class AccessArgs(Node):
    """Who may ask."""

    keys_file: str = ""
    """File with a line `name:sha256` per API key (serve_apps/keys.py writes it); beside it, or instead, the same
    lines in the environment variable IDGBR_API_KEYS. Without any key everybody may ask, on a loopback address only."""
    open_to_network: bool = False
    """Serve on an address other machines reach though there are no keys."""


class Args(Node):
    """Arguments of `serve_apps.refinement:build`."""

    model: str
    """models:/NAME@ALIAS (resolved to its version once, when the application is built), models:/NAME/VERSION, or a
    model folder that every node sees at this path."""
    stand_in: str = ""
    """Another such address, served while `model` stands for nothing: the challenger before the first promotion."""
    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow store that models:/ addresses are looked up in."""
    gateway: GatewayArgs = GatewayArgs()
    scenes: SceneArgs = SceneArgs()
    coarse: StageArgs = StageArgs()
    refiner: StageArgs = StageArgs()
    limits: LimitArgs = LimitArgs()
    access: AccessArgs = AccessArgs()
