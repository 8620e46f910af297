"""What the reconciler writes: the model version into a Serve config, and that into a RayService."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from ray.serve.schema import ServeDeploySchema

from idgbr.errors import UserError
from serve_apps.rollout import (
    MODEL_DEPLOYMENTS,
    RayService,
    model_in,
    rayservice_patch,
    serve_config,
    with_model,
)

NEW = "models:/toy/7"
CONFIG: dict[str, Any] = {
    "proxy_location": "EveryNode",
    "http_options": {"host": "0.0.0.0", "port": 8000},
    "applications": [
        {"name": "other", "route_prefix": "/other", "import_path": "a:b"},
        {
            "name": "refinement",
            "route_prefix": "/",
            "import_path": "serve_apps.refinement:build",
            "args": {"model": "models:/toy@champion"},
            "deployments": [{"name": "DiffusionRefiner", "num_replicas": 3, "user_config": {"model": "models:/toy/1"}}],
        },
    ],
}
OBJECT = {
    "apiVersion": "ray.io/v1",
    "kind": "RayService",
    "metadata": {"name": "refinement", "namespace": "maps", "resourceVersion": "41"},
    "spec": {"serveConfigV2": yaml.safe_dump(CONFIG), "rayClusterConfig": {"rayVersion": "2.60.0"}},
}


def test_only_the_model_of_one_application_changes() -> None:
    before = copy.deepcopy(CONFIG)
    changed = with_model(CONFIG, "refinement", NEW)
    assert before == CONFIG
    ServeDeploySchema.model_validate(changed)
    assert changed["applications"][0] == CONFIG["applications"][0]
    app = changed["applications"][1]
    assert {d["name"]: d["user_config"] for d in app["deployments"]} == {n: {"model": NEW} for n in MODEL_DEPLOYMENTS}
    assert next(d for d in app["deployments"] if d["name"] == "DiffusionRefiner")["num_replicas"] == 3
    # Code, arguments and environment are as they were, so Serve restarts nothing.
    assert {k: v for k, v in app.items() if k != "deployments"} == {
        k: v for k, v in CONFIG["applications"][1].items() if k != "deployments"
    }
    assert model_in(changed, "refinement") == NEW
    deployments = with_model(changed, "refinement", "models:/toy/8", NEW)["applications"][1]["deployments"]
    assert [d["user_config"] for d in deployments] == [{"model": "models:/toy/8", "fallback": NEW}] * 3
    assert with_model(changed, "refinement", NEW) == changed


def test_deployments_that_disagree_serve_no_version() -> None:
    assert model_in(CONFIG, "refinement") is None
    changed = with_model(CONFIG, "refinement", NEW)
    changed["applications"][1]["deployments"][0]["user_config"] = {"model": "models:/toy/6"}
    assert model_in(changed, "refinement") is None


def test_an_application_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no application named maps; applications: other, refinement"):
        with_model(CONFIG, "maps", NEW)


def test_the_patch_touches_the_serve_config_alone() -> None:
    patch = rayservice_patch(OBJECT, "refinement", NEW)
    assert set(patch) == {"metadata", "spec"}
    assert patch["metadata"] == {"resourceVersion": "41"}
    assert set(patch["spec"]) == {"serveConfigV2"}
    assert serve_config(patch) == with_model(CONFIG, "refinement", NEW)


@pytest.fixture
def kubernetes() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server that holds one RayService as the Kubernetes API does: merge patches, conflicts, a bearer token."""
    held: dict[str, Any] = copy.deepcopy(OBJECT)

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self._known() else 401, held)

        def do_PATCH(self) -> None:
            patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            if patch["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
                return self._answer(409, {})
            held["spec"] |= patch["spec"]
            held["metadata"]["resourceVersion"] = str(int(held["metadata"]["resourceVersion"]) + 1)
            return self._answer(200, held)

        def _known(self) -> bool:
            expected = "/apis/ray.io/v1/namespaces/maps/rayservices/refinement"
            return self.path == expected and self.headers["Authorization"] == "Bearer token"

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", held
    server.shutdown()
    server.server_close()


def test_a_rayservice_is_patched(
    kubernetes: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, held = kubernetes
    (tmp_path / "token").write_text("token\n")
    (tmp_path / "namespace").write_text("maps")
    service = RayService("refinement", "", "refinement", url, tmp_path)
    assert service.model() is None
    service.write(NEW)
    assert service.model() == NEW
    assert held["spec"]["rayClusterConfig"] == OBJECT["spec"]["rayClusterConfig"]  # type: ignore[index]
    assert held["metadata"]["resourceVersion"] == "42"
    assert service.fault() == ""
    status = {"status": "DEPLOY_FAILED", "message": "Traceback:\n  file\nValueError: no such key\n"}
    held["status"] = {"activeServiceStatus": {"applicationStatuses": {"refinement": status}}}
    assert service.fault() == "ValueError: no such key"
    # Somebody changes the object between reading and writing: refused, and nothing is lost.
    stale = copy.deepcopy(held)
    service.write("models:/toy/8")
    monkeypatch.setattr(service, "_get", lambda: stale)
    with pytest.raises(requests.HTTPError, match="409"):
        service.write("models:/toy/9")
    monkeypatch.undo()
    assert service.model() == "models:/toy/8"
