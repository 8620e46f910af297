"""Runs the service on this machine, until it is interrupted.

    python -m serve_apps.run --config configs/serve/local.yaml
    python -m serve_apps.run --config configs/serve/local.yaml --model models:/idgbr-kampala/2 --port 8080

On a cluster use `serve deploy` with the same kind of file.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

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


class Flags(JobFlags):
    """Flags of the service."""

    config: str = "configs/serve/local.yaml"
    """YAML file in Ray Serve's own format."""
    model: str = ""
    """Another model than the file's: models:/NAME@ALIAS, models:/NAME/VERSION or a model folder."""
    port: int = 0
    """Another port than the file's."""


def read_service(path: str, **changes: Any) -> tuple[HTTPOptions, Args]:
    """The address and the application's arguments in a file for `serve deploy`.

    Args:
        path: The file.
        changes: Arguments of the application that win over the file's.

    Raises:
        UserError: no such file, not of Serve's schema, an unknown key, or no application of ours.
    """
    content = read_yaml(path)
    try:
        schema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    ours = [app for app in schema.applications if app.import_path == IMPORT_PATH]
    if not ours:
        raise UserError(f"{path}: applications: none with import_path {IMPORT_PATH}")
    args = validate(Args, {**ours[0].args, **changes}, f"{path}: args")
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
    with start_ray(ResourcesConfig(logical_cpus=max(4, os.cpu_count() or 4))):
        from serve_apps.refinement import build

        serve.start(http_options=http)
        serve.run(build(args.model_copy(update={"model": model})), name="refinement", route_prefix="/")
        url = f"http://{http.host}:{http.port}"
        ready = requests.get(f"{url}/readyz", timeout=60).json()
        print(f"{ready.get('model', ready.get('detail'))} at {url} (interrupt to stop)", flush=True)
        stop.wait()
        serve.shutdown()
    return {"url": url}


if __name__ == "__main__":
    run_job(main, Flags, __doc__)
