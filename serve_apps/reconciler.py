"""The running endpoint follows an alias of the registry.

    python -m serve_apps.reconciler --model idgbr-demo --config configs/serve/local.yaml
    python -m serve_apps.reconciler --model idgbr-demo --rayservice refinement \
        --endpoint http://refinement-serve-svc:8000 --tracking-uri http://mlflow:5000 \
        --webhook-url http://reconciler:8090/mlflow

It reads the alias every few seconds, and at once when MLflow's webhook says that it moved (its secret is in the
environment variable IDGBR_WEBHOOK_SECRET), and is the only one that writes the model version into the Serve config. The
replicas load the new version beside the old one and test it; the outcome is tagged on the version. It keeps
no state: killed at any point and started again, it continues from the state of registry and endpoint, and while it or
MLflow is down the endpoint serves on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests
import uvicorn
from mlflow.exceptions import MlflowException
from pydantic import Field

from idgbr.cli import JobFlags, run_job
from idgbr.config.load import read_yaml
from idgbr.errors import UserError
from idgbr.registry.aliases import now, set_tags
from idgbr.registry.store import absolute_uri, connect, fail_soon
from serve_apps.rollout import RayService, RunningServe, Target
from serve_apps.webhook import Verifier, ensure_webhook, webhook_app

LOG = logging.getLogger("idgbr.reconciler")
SECRET = "IDGBR_WEBHOOK_SECRET"
STATE_TAG = "serving.state"
"""serving or failed, of a version that was rolled out."""
_TIMEOUT_S = 30.0
_AGAIN_S = 15.0
"""Seconds between two looks while something is wrong, at most."""
_PASSING = (MlflowException, requests.RequestException, RuntimeError, ConnectionError, OSError)
"""Raised while a store, a Serve or an endpoint is down."""


@dataclass(frozen=True)
class State:
    """The last look of the reconciler.

    Attributes:
        desired: the version the alias stands for.
        active: the version the endpoint answers with.
        settled: whether every replica of every deployment serves the desired version.
        error: why not.
        seconds: from the first look at the new alias to the last replica; None before, and after a restart.
    """

    desired: str = ""
    active: str = ""
    settled: bool = False
    error: str = ""
    seconds: float | None = None


class Reconciler:
    """Makes the endpoint serve the version of an alias, one look at a time.

    Args:
        uri: the MLflow store.
        name: the registered model.
        alias: the alias that is followed.
        target: where the Serve config is.
        endpoint: address of the endpoint.
        headers: sent to the endpoint: an API key.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        target: Target,
        endpoint: str,
        alias: str = "champion",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._uri, self._name, self._alias, self._target = uri, name, alias, target
        self._endpoint, self._headers = endpoint.rstrip("/"), dict(headers or {})
        self._woken = threading.Event()
        self._began: tuple[str, float] | None = None
        self.state = State()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def run(self, interval_s: float, ended: Callable[[], bool] = lambda: False) -> None:
        """Looks every few seconds until it is stopped; sooner while a version is being rolled out, or when woken."""
        while not ended():
            self.look()
            pause = interval_s if self.state.settled else _AGAIN_S if self.state.error else 1.0
            self._woken.wait(min(pause, interval_s))
            self._woken.clear()

    def look(self) -> State:
        """One look: alias, Serve config, endpoint. Never raises where one of them is down; the next look repeats."""
        try:
            version = str(connect(self._uri).get_model_version_by_alias(self._name, self._alias).version)
            address = f"models:/{self._name}/{version}"
            model = self._model()
            fault = self._target.fault()
            if fault or self._target.model() != address:
                self._began = (address, time.monotonic())
                self._target.write(address, str(model.get("active", "")))
                # Only now: from this line on the replicas continue without this process.
                LOG.info("rolling out %s%s", address, fault and f" again, since the application was not built: {fault}")
                model = self._model()
            self.state = self._seen(address, model, fault)
            self._tag(version)
        except _PASSING as error:
            LOG.warning("cannot look: %s", error)
            self.state = State(self.state.desired, self.state.active, False, str(error))
        return self.state

    def _model(self) -> dict[str, Any]:
        """Content of /v1/model; empty where no endpoint answers, as before the first rollout."""
        try:
            answer = requests.get(f"{self._endpoint}/v1/model", headers=self._headers, timeout=_TIMEOUT_S)
        except requests.ConnectionError:
            return {}
        if answer.status_code in (404, 503):
            return {}
        answer.raise_for_status()
        model: dict[str, Any] = answer.json()
        return model

    def _seen(self, address: str, model: Mapping[str, Any], fault: str) -> State:
        replicas = [one for several in (model.get("replicas") or {}).values() for one in several]
        settled = bool(replicas) and all(one["active"] == address for one in replicas)
        informed = bool(replicas) and all(one["desired"] == address for one in replicas)
        errors = model.get("errors") or {}
        # An error of the version before is none of this one.
        error = "; ".join(dict.fromkeys(map(str, errors.values()))) if informed and not settled else fault
        seconds = self.state.seconds if self.state.desired == address else None
        if settled and seconds is None and self._began is not None and self._began[0] == address:
            seconds = time.monotonic() - self._began[1]
            LOG.info("%s is served by every replica, %.1f s after it was seen", address, seconds)
        return State(address, str(model.get("active", "")), settled, error, seconds)

    def _tag(self, version: str) -> None:
        """Tags the outcome on the version, once it is known and not tagged yet."""
        known = "serving" if self.state.settled else "failed" if self.state.error else ""
        client = connect(self._uri)
        if not known or client.get_model_version(self._name, version).tags.get(STATE_TAG) == known:
            return
        tags = {"serving.at": now(), "serving.error": self.state.error, STATE_TAG: known}
        if self.state.seconds is not None:
            tags["serving.seconds"] = f"{self.state.seconds:.1f}"
        set_tags(client, self._name, version, tags)


class Flags(JobFlags):
    """Flags of the reconciler."""

    model: str
    """The registered model."""
    alias: str = "champion"
    """Which alias the endpoint follows."""
    tracking_uri: str = Field("sqlite:///mlflow.db", alias="tracking-uri")
    """MLflow store."""
    config: str = ""
    """Serve config to deploy; empty with --rayservice, which holds its own."""
    serve: str = "http://127.0.0.1:8265"
    """Dashboard of the Ray cluster that runs Serve."""
    rayservice: str = ""
    """Name of the RayService to patch instead, on Kubernetes."""
    namespace: str = ""
    """Its namespace; empty: that of this pod."""
    application: str = "refinement"
    """Name of the application in the Serve config."""
    endpoint: str = "http://127.0.0.1:8000"
    """Where the endpoint answers. Its API key is read from the environment variable IDGBR_API_KEY."""
    interval: float = Field(15.0, gt=0)
    """Seconds between two looks at the alias."""
    webhook_url: str = Field("", alias="webhook-url")
    """Where the MLflow server reaches this reconciler, http://HOST:PORT/mlflow; registered there. Empty: poll. MLflow
    takes http and private addresses only if its server has MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and
    MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true in its environment."""
    host: str = "0.0.0.0"
    """Address to listen at for the webhook."""
    port: int = 8090
    """Port to listen at for the webhook."""


def main(flags: Flags) -> dict[str, object]:
    """Follows the alias until it is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    fail_soon()
    key = os.environ.get("IDGBR_API_KEY", "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reconciler = Reconciler(flags.tracking_uri, flags.model, target(flags), flags.endpoint, flags.alias, headers)
    if flags.webhook_url:
        secret = os.environ.get(SECRET, "")
        if not secret:
            raise UserError(
                f"--webhook-url: the environment variable {SECRET} is empty; MLflow signs its calls with this secret"
            )
        app = webhook_app(Verifier(secret), reconciler.wake, lambda: asdict(reconciler.state))
        server = uvicorn.Server(uvicorn.Config(app, flags.host, flags.port, log_level="warning"))
        # A daemon: it has nothing to finish.
        threading.Thread(target=server.run, daemon=True).start()
        register_webhook(flags, secret)
    reconciler.run(flags.interval)
    return {}


def register_webhook(flags: Flags, secret: str) -> bool:
    """Registers the webhook with the MLflow server; where that is refused, says what the server lacks.

    Returns:
        Whether it is registered.
    """
    try:
        ensure_webhook(connect(flags.tracking_uri), f"idgbr-{flags.model}", flags.webhook_url, secret)
    except _PASSING as error:
        LOG.warning(
            "webhook not registered, polling every %g s: %s. Start the MLflow server with "
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, or name a public "
            "https address in --webhook-url",
            flags.interval,
            error,
        )
        return False
    return True


def target(flags: Flags) -> Target:
    """Where the flags say that the Serve config is.

    Raises:
        UserError: neither a config nor a RayService is named.
    """
    if flags.rayservice:
        return RayService(flags.rayservice, flags.namespace, flags.application)
    if not flags.config:
        raise UserError("--config: missing; name the Serve config to deploy, or a RayService with --rayservice")
    config = read_yaml(Path(flags.config))
    for app in config.get("applications") or []:
        if app.get("name") == flags.application:
            # Absolute, since replicas have working directories of their own.
            followed = {"model": f"models:/{flags.model}@{flags.alias}", "stand_in": ""}
            store = {"tracking_uri": absolute_uri(flags.tracking_uri)}
            app["args"] = {**(app.get("args") or {}), **followed, **store}
    return RunningServe(flags.serve, config, flags.application)


if __name__ == "__main__":
    run_job(main, Flags, __doc__)
