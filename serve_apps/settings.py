"""Settings of the service; unknown keys are refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from idgbr.config.node import Node


class DeploymentArgs(Node):
    """Replicas of one deployment, and the resources of each."""

    min_replicas: int = Field(1, ge=0)
    """Replicas that always run; 0 ends an idle deployment, whose next request waits for it to start."""
    max_replicas: int = Field(2, ge=1)
    target_ongoing_requests: float = Field(2.0, gt=0)
    """Calls in flight per replica, queued ones included, that autoscaling aims at."""
    upscale_delay_s: float = Field(5.0, ge=0)
    """Seconds of more calls than that before replicas are added."""
    downscale_delay_s: float = Field(120.0, ge=0)
    """Seconds of fewer calls before replicas end."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs of a replica, as Ray counts them."""
    max_ongoing_requests: int = Field(16, ge=1)
    """Calls a replica accepts at a time."""
    max_queued_requests: int = Field(128, ge=-1)
    """Calls that wait for a replica, per caller, before more are refused; -1 is no limit."""

    @model_validator(mode="after")
    def _ordered(self) -> DeploymentArgs:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self


class StageArgs(DeploymentArgs):
    """A deployment that holds a model."""

    max_queued_requests: int = Field(-1, ge=-1)
    """No limit: the scene workers admit no more work than can be done in time."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of a replica; fractions share a device."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where the replica sees a device."""
    threads: int = Field(1, ge=1)
    """torch threads of a replica."""
    batch: int = Field(16, ge=1)
    """Largest number of windows predicted at once, those of several requests together."""
    batch_wait_s: float = Field(0.0, ge=0)
    """Seconds that a batch waits until it is full; 0 takes the windows that are queued, so that no replica idles."""


class GatewayArgs(DeploymentArgs):
    """The gateway, which holds no model."""

    num_cpus: float = Field(0.25, ge=0)
    target_ongoing_requests: float = Field(32.0, gt=0)
    max_ongoing_requests: int = Field(256, ge=1)
    max_queued_requests: int = Field(64, ge=-1)


class SceneArgs(DeploymentArgs):
    """The workers that decode, cut, blend and encode."""

    num_cpus: float = Field(0.5, ge=0)
    target_ongoing_requests: float = Field(4.0, gt=0)
    max_ongoing_requests: int = Field(256, ge=1)
    """Calls a replica looks at; it admits those that it can answer in time, and refuses the others at once."""
    threads: int = Field(2, ge=1)
    """Threads of a replica for codecs and blending."""
    calls: int = Field(4, ge=1)
    """Calls to a stage that one request keeps in flight."""


class LimitArgs(Node):
    """Limits of a request."""

    body_mb: float = Field(64.0, gt=0)
    """Body, in millions of bytes."""
    pixels: int = Field(16 * 2**20, ge=1)
    """Rows times columns of an image, checked before it is decoded. Where this machine needs longer than `request_s`
    for so many, as measured when the model is loaded, less is accepted: /v1/model shows how much."""
    bands: int = Field(16, ge=1)
    steps: int = Field(50, ge=1)
    samples: int = Field(16, ge=1)
    body_s: float = Field(30.0, gt=0)
    """How long a body may take to arrive, in seconds."""
    request_s: float = Field(120.0, gt=0)
    """How long a map may take after that, in seconds. Work that would not be done by then is refused with 429."""


class AccessArgs(Node):
    """Who may use the service."""

    keys_file: str = ""
    """File with a line `name:sha256` per API key (serve_apps/keys.py writes it); beside it, or instead, the same
    lines in the environment variable IDGBR_API_KEYS. Without any key everybody may, on a loopback address only."""
    open_to_network: bool = False
    """Serve on an address that other machines reach though there are no keys."""
    hosts: list[str] = []
    """Host names (without port) that requests may be addressed to, such as maps.example.org; others get 421. Empty:
    localhost, 127.0.0.1 and [::1] where the service is bound to a loopback address, else every name."""


class Args(Node):
    """Arguments of `serve_apps.refinement:build`."""

    model: str
    """models:/NAME@ALIAS (resolved to its version once, when the application is built), models:/NAME/VERSION, or a
    model folder at this path on every node."""
    stand_in: str = ""
    """Another such address, served while the alias of `model` is not set: the challenger before the first promotion."""
    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow store that models:/ addresses are looked up in."""
    gateway: GatewayArgs = GatewayArgs()
    scenes: SceneArgs = SceneArgs()
    coarse: StageArgs = StageArgs()
    refiner: StageArgs = StageArgs()
    limits: LimitArgs = LimitArgs()
    access: AccessArgs = AccessArgs()
