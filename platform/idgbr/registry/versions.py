"""Registers model folders as versions of a registered model, and resolves addresses of versions to folders."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from idgbr.errors import UserError
from idgbr.evaluation.bootstrap import Interval
from idgbr.files import hash_folder, hash_text
from idgbr.models.description import load_spec
from idgbr.registry.card import keep_card, model_card
from idgbr.registry.store import absolute_uri, connect, experiment_id

CHALLENGER = "challenger"
CONTENT_TAG = "idgbr.content"
METRIC_TAG = "metric."

_REQUIREMENTS = (
    "diffusers",
    "mlflow",
    "numpy",
    "opencv-contrib-python-headless",
    "pandas",
    "pydantic",
    "pyyaml",
    "rasterio",
    "rich",
    "safetensors",
    "scipy",
    "segmentation-models-pytorch",
    "shapely",
    "timm",
    "torch",
    "torchvision",
)
"""Packages that prediction imports; they are pinned to the versions with which the model was made."""


_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


class UnknownVersion(UserError):
    """A valid address for which the store has no version."""


def register(
    folder: str | Path,
    name: str,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    uri: str,
    run_id: str | None = None,
    experiment: str = "idgbr",
    intervals: Sequence[Interval] = (),
) -> str:
    """Registers a model folder as the next version of a model, with its card, and gives it the alias `challenger`.

    If the content of the folder equals that of an existing version, no version is added, so that a command can be
    repeated.

    Args:
        folder: The model folder, with its `model.json`.
        name: Name of the registered model.
        metrics: Figures stored as tags `metric.NAME` of the version; default: those in `model.json`.
        tags: Additional tags of the version.
        uri: The store.
        run_id: The run that made the model; if None, a run is created.
        experiment: Experiment of that run.
        intervals: Confidence intervals of the changes against the coarse map, for the card.

    Returns:
        The version, for example "3".

    Raises:
        UserError: The folder is no model folder.
    """
    folder = check_folder(folder)
    client = connect(uri)
    content = hash_folder(folder)
    version = next((v.version for v in _versions(client, name) if v.tags.get(CONTENT_TAG) == content), None)
    new = version is None
    if new:
        with _active_run(client, uri, run_id, experiment, name):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"model": str(folder)},
                code_paths=[str(Path(__file__).parents[1])],
                signature=signature(folder),
                pip_requirements=requirements(),
                registered_model_name=name,
            )
        version = logged.registered_model_version
    version = str(version)
    spec = load_spec(folder)
    figures = spec.metrics if metrics is None else metrics
    for key, value in _version_tags(figures, tags, content).items():
        client.set_model_version_tag(name, version, key, value)
    if new:  # the card of an existing one may hold a verdict
        keep_card(client, name, version, model_card(f"{name}/{version}", spec, dict(tags or {}), figures, intervals))
    client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def resolve(model: str, uri: str) -> tuple[Path, str]:
    """Get the folder of a model on this machine; downloads the model if necessary.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a local model folder.
        uri: The store; not used for a local folder.

    Returns:
        The folder, and a label for messages: "NAME/VERSION", or the name of the folder.

    Raises:
        UnknownVersion: There is no such model, version or alias; the message names the existing ones.
        UserError: The argument is not an address, or the folder is not a model folder.
    """
    if not model.startswith("models:"):
        folder = check_folder(model)
        return folder, folder.resolve().name
    match = _ADDRESS.fullmatch(model)
    if match is None:
        raise UserError(f"{model}: no address of a model; expected models:/NAME@ALIAS or models:/NAME/VERSION")
    client = connect(uri)
    try:
        found = _version(client, model, match, uri)
        source = client.get_model_version_download_uri(found.name, found.version)
        label = f"{found.name}/{found.version}"
        logged = _fetch(source, uri, label)
    except MlflowException:
        # The store does not respond. Versions are immutable, so a copy in the local cache is valid.
        label = f"{match['name']}/{match['version']}"
        kept = sorted(_cache(uri, label).glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)
        if not kept:
            raise
        logged = kept[-1]
    return check_folder(
        logged / Model.load(str(logged)).flavors["python_function"]["artifacts"]["model"]["path"]
    ), label


def check_folder(folder: str | Path) -> Path:
    """Check that a folder is a model folder, and return it.

    Raises:
        UserError: It does not exist, or its `model.json` is missing or has a format that this release cannot read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model; expected models:/NAME@ALIAS, models:/NAME/VERSION or a model folder")
    load_spec(folder)
    return folder


def signature(folder: Path) -> ModelSignature:
    """Signature of the MLflow model: class ids as output, the sampler's main settings as params.

    It deliberately has no input schema: an MLflow schema is either of tensors or of columns, and would refuse paths or
    arrays. The model checks its input itself.
    """
    sampler = load_spec(folder).sampler
    return ModelSignature(
        outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1))]),
        params=ParamSchema([ParamSpec(key, "long", getattr(sampler, key)) for key in ("steps", "samples", "seed")]),
    )


def requirements() -> list[str]:
    """Requirements of prediction, pinned to the installed versions."""
    pins = [f"{name}=={metadata.version(name)}" for name in _REQUIREMENTS]
    return [pin.partition("+")[0] for pin in pins]


@contextmanager
def _active_run(client: MlflowClient, uri: str, run_id: str | None, experiment: str, name: str) -> Iterator[None]:
    """Makes a run the active MLflow run inside the context, and restores its status afterwards."""
    status = "FINISHED" if run_id is None else client.get_run(run_id).info.status
    if run_id is None:
        run_id = client.create_run(experiment_id(client, uri, experiment), run_name=f"register-{name}").info.run_id
    # MLflow copies both addresses to environment variables, which child processes inherit: restore them exactly.
    before = {key: os.environ.get(key) for key in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(absolute_uri(uri))
    mlflow.set_registry_uri(absolute_uri(uri))
    try:
        mlflow.start_run(run_id=run_id)
        try:
            yield
        except BaseException:
            mlflow.end_run("FAILED" if status == "FINISHED" else status)
            raise
        mlflow.end_run(status)
    finally:
        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]
        mlflow.set_registry_uri(before["MLFLOW_REGISTRY_URI"])  # type: ignore[arg-type]
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)


def _version(client: MlflowClient, model: str, match: re.Match[str], uri: str) -> ModelVersion:
    name, alias, version = match["name"], match["alias"], match["version"]
    try:
        if alias:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, version)
    except MlflowException:
        models = {found.name: found for found in client.search_registered_models()}
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        raise UnknownVersion(f"{model}: no model of this name in {uri}; registered there: {known}") from None
    aliases = ", ".join(f"@{key}" for key in sorted(client.get_registered_model(name).aliases)) or "none"
    numbers = ", ".join(sorted((str(v.version) for v in _versions(client, name)), key=int)) or "none"
    raise UnknownVersion(f"{model}: the model has no such version; versions: {numbers}; aliases: {aliases}") from None


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    quoted = name.replace("'", "\\'")
    return list(client.search_model_versions(f"name='{quoted}'"))


def _fetch(source: str, uri: str, label: str) -> Path:
    """Folder of the logged model: its own folder if that is local, else a copy that is downloaded once."""
    parsed = urlparse(source)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    if not parsed.scheme:
        return Path(source)
    target = _cache(uri, label) / hash_text(source)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            # Not models:/NAME/VERSION: MLflow would resolve it in the process's default store and ignore tracking_uri.
            fetched = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=temporary, tracking_uri=uri)
            try:
                Path(fetched).rename(target)
            except OSError:
                # Another process downloaded it first.
                if not target.is_dir():
                    raise
    return target


def _cache(uri: str, label: str) -> Path:
    """Cache folder of one version; has several entries if the store at this address was recreated."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "idgbr" / "models" / hash_text(uri) / label.replace("/", "-")


def _version_tags(metrics: Mapping[str, float], tags: Mapping[str, str] | None, content: str) -> dict[str, str]:
    figures = {f"{METRIC_TAG}{key}": f"{value:.6g}" for key, value in metrics.items()}
    return figures | dict(tags or {}) | {CONTENT_TAG: content}
