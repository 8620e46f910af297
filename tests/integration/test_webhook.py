"""The webhook against MLflow servers started as the documentation and the manifest say."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import uvicorn
from following import ROOT, Process, free_port, manifest_environment, until

from idgbr.registry.store import connect
from serve_apps.reconciler import Flags, register_webhook
from serve_apps.webhook import PATH, Verifier, webhook_app

pytestmark = pytest.mark.slow
NAME, SECRET = "toy", "of the test"
PLAIN = "mlflow server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000"


def documented_line() -> str:
    """The command of the documentation that starts an MLflow server with webhooks."""
    texts = [path.read_text().replace("\\\n", " ") for path in sorted((ROOT / "docs").rglob("*.md"))]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    (line,) = {line for line in lines if line.startswith("MLFLOW_WEBHOOK_") and "mlflow server" in line}
    return line


@contextmanager
def server(line: str, folder: Path, environment: dict[str, str] | None = None) -> Iterator[str]:
    """An MLflow server started by a shell line, at a free port instead of 5000; its address."""
    port = free_port()
    words = ["bash", "-c", f"exec env {line.replace('--port 5000', f'--port {port}')} --workers 1"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # the environment is active
    process = Process(words, folder / "mlflow.log", {"PATH": path} | (environment or {}))
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        process.lives()
        try:
            return requests.get(f"{uri}/health", timeout=10).ok
        except requests.RequestException:
            return False

    try:
        until(answers, "MLflow")
        yield uri
    finally:
        process.kill()


@pytest.mark.parametrize("source", ["documentation", "manifest"])
def test_an_alias_that_moves_is_heard_of(source: str, tmp_path: Path) -> None:
    heard, port = threading.Event(), free_port()
    app = webhook_app(Verifier(SECRET), heard.set, dict)
    listener = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    documented = source == "documentation"
    environment = {} if documented else manifest_environment("MLFLOW_WEBHOOK_")
    with server(documented_line() if documented else PLAIN, tmp_path, environment) as uri:
        url = f"http://127.0.0.1:{port}{PATH}"
        flags = Flags.model_validate({"model": NAME, "tracking-uri": uri, "webhook-url": url})
        assert register_webhook(flags, SECRET)
        client = connect(uri)
        client.create_registered_model(NAME)
        client.create_model_version(NAME, "s3://models/toy")  # a server refuses local paths without a run
        client.set_registered_model_alias(NAME, "champion", "1")
        assert heard.wait(300)
    listener.should_exit = True
    thread.join()


def test_a_default_server_refuses_and_the_message_says_what_to_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not any(name.startswith("MLFLOW_WEBHOOK_") for name in os.environ)
    with server(PLAIN, tmp_path) as uri, caplog.at_level(logging.WARNING):
        flags = Flags.model_validate({"model": NAME, "tracking-uri": uri, "webhook-url": "http://127.0.0.1:9/mlflow"})
        assert not register_webhook(flags, SECRET)
    words = shlex.split(documented_line())
    variables = [word.partition("=")[0] for word in words if word.startswith("MLFLOW_WEBHOOK_")]
    assert len(variables) == 2 and all(name in caplog.text for name in variables)
