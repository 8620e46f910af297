"""Connection to the MLflow store that keeps runs and models; its addresses are absolute, valid in every process."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from idgbr.errors import UserError

_SQLITE = "sqlite:///"


def absolute_uri(uri: str) -> str:
    """The store's address with a relative SQLite path made absolute against the working directory.

    Workers have other working directories than the driver, so only absolute addresses may be passed to them.

    Raises:
        UserError: The address is a plain folder; MLflow 3 no longer keeps runs in folders.
    """
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).resolve()}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"tracking.uri: found {uri!r}, a folder; expected a database such as sqlite:///mlflow.db, or the address "
            "of an MLflow server such as http://host:5000"
        )
    return uri


def connect(uri: str) -> MlflowClient:
    """The client of a store: one per process and address, which registry and runs share.

    Raises:
        UserError: See `absolute_uri`.
    """
    return _client(absolute_uri(uri))


@functools.cache
def _client(uri: str) -> MlflowClient:
    if uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def fail_soon() -> None:
    """Reduce the retries of MLflow's client, which take minutes by default, in a process that has its own retries."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, which is created if it does not exist; artifacts go next to a SQLite database."""
    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    uri = absolute_uri(uri)
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts" / name).as_uri()
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        # Another process created it first.
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise
