"""Writes a model version into a Serve config: of a running Serve, or of a RayService."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import requests
import yaml
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from idgbr.errors import UserError

MODEL_DEPLOYMENTS = ("SceneWorker", "CoarseSegmenter", "DiffusionRefiner")
"""Deployments whose `user_config` names the model version."""
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 30.0


class Target(Protocol):
    """Holder of the Serve config of an application; nothing else writes the model version there."""

    def model(self) -> str | None:
        """The version in the config of all deployments; None where there is none, or several."""

    def write(self, address: str, fallback: str = "") -> None:
        """Makes all deployments serve a version, and another one where it does not load."""

    def fault(self) -> str:
        """Why the application could not be built, in one line; empty where it could."""


def with_model(config: Mapping[str, Any], application: str, address: str, fallback: str = "") -> dict[str, Any]:
    """A Serve config whose deployments of one application serve a version; all else is as it was.

    Args:
        config: in Serve's own format.
        application: its name.
        address: models:/NAME/VERSION.
        fallback: the version for new replicas while that one does not load; empty for none.

    Raises:
        UserError: the config has no such application.
    """
    changed = copy.deepcopy(dict(config))
    app = _application(changed, application)
    entries = {entry["name"]: entry for entry in app.get("deployments") or []}
    for name in MODEL_DEPLOYMENTS:
        entry = entries.setdefault(name, {"name": name})
        entry["user_config"] = {"model": address} | ({"fallback": fallback} if fallback else {})
    app["deployments"] = list(entries.values())
    return changed


def model_in(config: Mapping[str, Any], application: str) -> str | None:
    """The version in the config of all deployments of an application; None where there is none, or several.

    Raises:
        UserError: the config has no such application.
    """
    app = _application(config, application)
    by_name = {entry["name"]: (entry.get("user_config") or {}).get("model") for entry in app.get("deployments") or []}
    versions = {by_name.get(name) for name in MODEL_DEPLOYMENTS}
    return versions.pop() if len(versions) == 1 else None


class RunningServe:
    """Serve on a Ray cluster, through the REST API of its dashboard.

    Args:
        address: of the dashboard, http://host:8265.
        config: to deploy, without the model version.
        application: the application's name.
    """

    def __init__(self, address: str, config: Mapping[str, Any], application: str) -> None:
        _application(config, application)
        self._address, self._config, self._name = address, dict(config), application

    def model(self) -> str | None:
        """See `Target`."""
        running = self._client().get_serve_details()["applications"].get(self._name)
        config = running and running.get("deployed_app_config")
        return model_in({"applications": [config]}, self._name) if config else None

    def write(self, address: str, fallback: str = "") -> None:
        """See `Target`. Only `user_config` differs from what runs, so Serve restarts no replica."""
        self._client().deploy_applications(with_model(self._config, self._name, address, fallback))

    def fault(self) -> str:
        """See `Target`."""
        return _fault(self._client().get_serve_details()["applications"].get(self._name))

    def _client(self) -> ServeSubmissionClient:
        return ServeSubmissionClient(self._address)


class RayService:
    """A RayService of KubeRay, by patching the Serve config it holds.

    Args:
        name: of the RayService.
        namespace: it lies in; empty: that of this pod.
        application: the application's name in its Serve config.
        server: of the Kubernetes API; empty: that of this pod's cluster.
        account: folder with `token` and `ca.crt` of the service account.
    """

    def __init__(self, name: str, namespace: str, application: str, server: str = "", account: Path = _ACCOUNT) -> None:
        where = namespace or (account / "namespace").read_text().strip()
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        self._url = f"{server or f'https://{host}:{port}'}/apis/ray.io/v1/namespaces/{where}/rayservices/{name}"
        self._name, self._account = application, account

    def model(self) -> str | None:
        """See `Target`."""
        return model_in(serve_config(self._get()), self._name)

    def write(self, address: str, fallback: str = "") -> None:
        """See `Target`. Refused by the API where somebody else changed the object in between; the next look repeats."""
        patch = rayservice_patch(self._get(), self._name, address, fallback)
        headers = {"Content-Type": "application/merge-patch+json"}
        self._ask("PATCH", json=patch, headers=headers)

    def fault(self) -> str:
        """See `Target`."""
        active = (self._get().get("status") or {}).get("activeServiceStatus") or {}
        return _fault((active.get("applicationStatuses") or {}).get(self._name))

    def _get(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET").json()
        return found

    def _ask(self, method: str, headers: Mapping[str, str] | None = None, **options: Any) -> requests.Response:
        # Tokens are renewed on disk.
        token = (self._account / "token").read_text().strip()
        authority = self._account / "ca.crt"
        answer = requests.request(
            method,
            self._url,
            headers={"Authorization": f"Bearer {token}", **(headers or {})},
            verify=str(authority) if authority.is_file() else True,
            timeout=_TIMEOUT_S,
            **options,
        )
        answer.raise_for_status()
        return answer


def serve_config(rayservice: Mapping[str, Any]) -> dict[str, Any]:
    """The Serve config in a RayService object."""
    config: dict[str, Any] = yaml.safe_load(rayservice["spec"]["serveConfigV2"])
    return config


def rayservice_patch(
    rayservice: Mapping[str, Any], application: str, address: str, fallback: str = ""
) -> dict[str, Any]:
    """The merge patch that makes a RayService serve a version.

    It touches the Serve config alone, so that KubeRay updates it in place and starts no new cluster; it holds the
    object's resource version, so that a change made in between is not overwritten.

    Args:
        rayservice: the object as the API gave it.
        application: the application's name.
        address: models:/NAME/VERSION.
        fallback: see `with_model`.
    """
    config = with_model(serve_config(rayservice), application, address, fallback)
    return {
        "metadata": {"resourceVersion": rayservice["metadata"]["resourceVersion"]},
        "spec": {"serveConfigV2": yaml.safe_dump(config, sort_keys=False)},
    }


def _fault(status: Mapping[str, Any] | None) -> str:
    if not status or status["status"] != "DEPLOY_FAILED":
        return ""
    # A traceback, whose last line is the error.
    return str(status["message"]).strip().rpartition("\n")[2]


def _application(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    applications: list[dict[str, Any]] = config.get("applications") or []
    found = next((app for app in applications if app.get("name") == name), None)
    if found is None:
        known = ", ".join(str(app.get("name")) for app in applications) or "none"
        raise UserError(f"the Serve config has no application named {name}; applications: {known}")
    return found
