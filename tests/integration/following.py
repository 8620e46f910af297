"""An endpoint that follows the registry; MLflow, Ray with Serve and reconciler are processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import requests
import yaml
from mlflow import MlflowClient
from numpy.typing import NDArray
from promotion_toys import NAME, gate_experiment, gate_scenes
from serving import SMALL, read, refine

from idgbr.registry.store import connect
from idgbr.registry.versions import register
from serve_apps.reconciler import Flags, target

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 1200.0
"""Nothing here takes a minute on a quiet machine."""
_RAY = """
import sys, ray
for tries_left in (2, 1, 0):  # Ray gives up after 30 seconds
    try:
        ray.init(address="local", num_cpus=8, include_dashboard=True, dashboard_host="127.0.0.1",
                 dashboard_port=int(sys.argv[1]), _metrics_export_port=int(sys.argv[2]),
                 object_store_memory=300 * 2**20)
        break
    except Exception:
        ray.shutdown()
        if not tries_left:
            raise
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
T = TypeVar("T")


def until(condition: Callable[[], T], what: str) -> T:
    """The first answer that is not empty."""
    end = time.monotonic() + _PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < end, f"{what}: not within {_PATIENCE_S:.0f} s"
        time.sleep(0.2)
    return answer


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Process:
    """A process with a log, that can be killed and started again."""

    def __init__(self, words: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._words, self._log, self._environment = [str(word) for word in words], log, environment or {}
        self.start()

    def start(self) -> None:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=self._log.parent,
                env=os.environ | self._environment, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, to its children too."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        """SIGTERM, and what it prints until it has ended."""
        self._process.terminate()
        self._process.communicate()

    def end(self) -> None:
        """Closes its standard input, at whose end it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def lives(self) -> bool:
        """True, or it fails with what it printed last."""
        assert self._process.poll() is None, self._log.read_text()[-5000:]
        return True

    def log(self) -> str:
        """What it printed since it was started; it still has to be there."""
        self.lives()
        return self._log.read_text()


def manifest_environment(prefix: str) -> dict[str, str]:
    """Variables of the MLflow server in configs/kubernetes/mlflow.yaml."""
    documents = yaml.safe_load_all((ROOT / "configs" / "kubernetes" / "mlflow.yaml").read_text())
    (server,) = [one for one in documents if (one["kind"], one["metadata"]["name"]) == ("Deployment", "mlflow")]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"] if one["name"].startswith(prefix)}


class Store:
    """An MLflow server with SQLite behind it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1,
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts",
        ]  # fmt: skip
        webhooks = manifest_environment("MLFLOW_WEBHOOK_")
        jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._server = Process(command, folder / "mlflow.log", webhooks | jobs)
        until(self._answers, "MLflow")
        self.client: MlflowClient = connect(self.uri)

    def kill(self) -> None:
        self._server.kill()

    def restart(self) -> None:
        self._server.start()
        until(self._answers, "MLflow")

    def _answers(self) -> bool:
        self._server.lives()
        try:
            return requests.get(f"{self.uri}/health", timeout=10).ok
        except requests.RequestException:
            return False


@dataclass(frozen=True)
class Picture:
    """An image to send, and what each version makes of it."""

    body: bytes
    maps: Mapping[str, NDArray[np.uint8]]


class Place:
    """Store, Ray and what is asked of the endpoint; `follow` starts a reconciler and with it the endpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._dashboard, self._metrics, port = folder, free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.store = Store(folder)
        self.gate, _ = gate_experiment(folder, self.store.uri, gate_scenes(folder))
        two = {"num_cpus": 0.1, "min_replicas": 2, "max_replicas": 2}
        config = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": port},
            "applications": [
                {
                    "name": "refinement",
                    "route_prefix": "/",
                    "import_path": "serve_apps.refinement:build",
                    "args": SMALL | {"refiner": two, "limits": {"request_s": 600}},
                }
            ],
        }
        (folder / "serve.yaml").write_text(yaml.safe_dump(config))
        self._flags = {
            "model": NAME, "config": str(folder / "serve.yaml"), "tracking-uri": self.store.uri,
            "serve": f"http://127.0.0.1:{self._dashboard}", "endpoint": self.url,
        }  # fmt: skip
        self._ray = Process([sys.executable, "-c", _RAY, self._dashboard, self._metrics], folder / "ray.log")
        try:
            until(lambda: "address" in self._ray.log(), "Ray")
        except AssertionError:
            self.store.kill()
            raise
        self._address = self._ray.log().split("address ")[1].split()[0]

    def close(self) -> None:
        self._ray.end()
        self.store.kill()

    @contextmanager
    def follow(self, *words: object, **environment: str) -> Iterator[Process]:
        """A reconciler."""
        flags = [word for key, value in self._flags.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-m", "serve_apps.reconciler", *flags, *words]
        process = Process(command, self._folder / "reconciler.log", environment)
        try:
            yield process
        finally:
            process.kill()

    def roll_out(self, version: str) -> None:
        """What a reconciler does last before it is killed."""
        target(Flags.model_validate(self._flags)).write(f"models:/{NAME}/{version}")

    def promote(self, *words: object) -> dict[str, Any]:
        """jobs/promote.py: its last line, and all it printed as `text`."""
        command = [sys.executable, str(ROOT / "jobs" / "promote.py"), "--model", NAME, *map(str, words)]
        environment = os.environ | {"RAY_ADDRESS": self._address}
        done = subprocess.run(
            command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S
        )
        assert done.stdout, done.stderr
        return {**json.loads(done.stdout.splitlines()[-1]), "text": done.stdout + done.stderr}

    def register(self, model: Path) -> str:
        """The model's version; the same one for the same model."""
        return register(model, NAME, uri=self.store.uri)

    def crown(self, version: str) -> None:
        """Champion by hand."""
        self.store.client.set_registered_model_alias(NAME, "champion", version)

    def champion(self) -> str:
        return str(self.store.client.get_model_version_by_alias(NAME, "champion").version)

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.store.client.get_model_version(NAME, version).tags)

    def model(self) -> dict[str, Any]:
        """Content of /v1/model; empty while the endpoint does not answer."""
        try:
            answer = requests.get(f"{self.url}/v1/model", timeout=60)
        except requests.RequestException:
            return {}
        found: dict[str, Any] = answer.json() if answer.ok else {}
        return found

    def settled(self, version: str) -> bool:
        """Whether every replica serves the version."""
        replicas = [one for several in self.model().get("replicas", {}).values() for one in several]
        return bool(replicas) and {one["active"] for one in replicas} == {f"models:/{NAME}/{version}"}

    def gauge(self, name: str) -> float:
        """Largest value of a metric over all replicas."""
        lines = requests.get(f"http://127.0.0.1:{self._metrics}/metrics", timeout=60).text.splitlines()
        return max((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"ray_{name}")), default=-1.0)

    def check(self, pictures: Sequence[Picture], version: str) -> None:
        """The endpoint serves, and that version."""
        for picture in pictures:
            answer = refine(self.url, picture.body)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-idgbr-model"] == f"{NAME}/{version}"
            assert same(answer.content, picture.maps[version])


def same(body: bytes, expected: NDArray[np.uint8]) -> bool:
    """Windows travel in half precision: a pixel in a thousand may lie between two classes."""
    return bool((read(body)[0] == expected).mean() >= 0.999)
