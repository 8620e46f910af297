"""Runs the service on this machine, until it is interrupted.

    python -m serve_apps.run --config configs/serve/local.yaml
    python -m serve_apps.run --config configs/serve/local.yaml --model models:/idgbr-kampala/2 --port 8080

On a cluster use `serve deploy` with the same kind of file.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import ray
import requests
from pydantic import ValidationError
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ServeDeploySchema

from idgbr.cli import JobFlags, run_job
from idgbr.config.load import read_yaml, validate
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.session import start_ray
from idgbr.errors import UserError
from serve_apps.access import Keys, check_bind
from serve_apps.model_folder import pinned
from serve_apps.proxy import ENVIRONMENT
from serve_apps.settings import Args

IMPORT_PATH = "serve_apps.refinement:build"
_PARTS = {
    "CoarseSegmenter": "stage 1 (CoarseSegmenter)",
    "DiffusionRefiner": "stage 2 (DiffusionRefiner)",
    "SceneWorker": "the scene worker",
    "Gateway": "the gateway",
}


class Flags(JobFlags):
    """Flags of the service."""

    config: str = "configs/serve/local.yaml"
    """YAML file in Ray Serve's own format."""
    model: str = ""
    """Another model than the file's: models:/NAME@ALIAS, models:/NAME/VERSION or a model folder."""
    port: int = 0
    """Another port than the file's."""


class _StartLines(threading.Thread):
    """Prints a line for every part of the service as it becomes ready."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._began, self._ended = time.monotonic(), threading.Event()

    def print(self, line: str) -> None:
        """A line with the seconds since the start."""
        print(f"{time.monotonic() - self._began:5.1f} s  {line}", flush=True)

    def run(self) -> None:
        ready: set[str] = set()
        ended = False
        while not ended:
            ended = self._ended.wait(0.5)  # what became ready since the last look is printed at the end
            for app in serve.status().applications.values():
                for name, deployment in app.deployments.items():
                    if deployment.status == "HEALTHY" and name not in ready:
                        ready.add(name)
                        self.print(f"{_PARTS.get(name, name)} is ready")

    def __enter__(self) -> _StartLines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def read_service(path: str, **changes: Any) -> tuple[HTTPOptions, Args]:
    """The HTTP options and the application's arguments in a file for `serve deploy`.

    Args:
        path: The file.
        changes: Arguments of the application that override the file's.

    Raises:
        UserError: no such file, not of Serve's schema, an unknown key, or no application of this package.
    """
    content = read_yaml(path)
    try:
        schema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    found = [app for app in schema.applications if app.import_path == IMPORT_PATH]
    if not found:
        raise UserError(f"{path}: applications: none with import_path {IMPORT_PATH}")
    args = validate(Args, {**found[0].args, **changes}, f"{path}: args")
    options = {k: v for k, v in schema.http_options.model_dump().items() if k in HTTPOptions.model_fields}
    return HTTPOptions(**options), args


def main(flags: Flags) -> dict[str, object]:
    """Serves until SIGINT or SIGTERM."""
    http, args = read_service(flags.config, **({"model": flags.model, "stand_in": ""} if flags.model else {}))
    http.port = flags.port or http.port
    check_bind(http.host, Keys.read(args.access), args.access)
    try:
        model = pinned(args.model, args.tracking_uri, args.stand_in)
    except UserError as error:
        raise UserError(f"{error}\nargs.model of {flags.config}: `make demo` makes the demo's model") from error
    root = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    os.environ.update(ENVIRONMENT)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    lines = _StartLines()
    lines.print("starting Ray")
    with start_ray(ResourcesConfig(logical_cpus=max(4, os.cpu_count() or 4)), loopback=True):
        from serve_apps.refinement import build

        lines.print(f"Ray runs; loading {model} and measuring how fast it is here")
        serve.start(http_options=http)
        with lines:
            serve.run(build(args.model_copy(update={"model": model})), name="refinement", route_prefix="/")
        url = f"http://{http.host}:{http.port}"
        for line in _summary(url):
            lines.print(line)
        stop.wait()
        serve.shutdown()
    return {"url": url}


def _summary(url: str) -> list[str]:
    """Where the service, its metrics and its log are, and how much it takes on."""
    model = requests.get(f"{url}/v1/model", timeout=60)
    limits = model.json().get("limits") if model.ok else None
    size = f", up to {limits['pixels']:,} px in {limits['seconds']:g} s" if limits else ""
    name = requests.get(f"{url}/readyz", timeout=60).json()
    node = ray.nodes()[0]
    session: Any = ray._private.worker._global_node
    return [
        f"metrics: http://127.0.0.1:{node['MetricsExportPort']}/metrics (ray_idgbr_*)",
        f"log: {session.get_logs_dir_path()}/serve",
        f"{name.get('model', name.get('detail'))} at {url}{size} (interrupt to stop)",
    ]


if __name__ == "__main__":
    run_job(main, Flags, __doc__)
