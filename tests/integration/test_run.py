"""`make serve` as a process: the lines it prints, and the ports it opens."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import pytest
import requests
from following import ROOT, Process, free_port, until

pytestmark = pytest.mark.slow


def listening(process: psutil.Process) -> set[str]:
    """Addresses that a process and its children listen at.

    Without Serve's replicas: each opens one port for calls between deployments, whose address is fixed in Ray 2.60.
    """
    children = process.children(recursive=True)
    family = [process, *(child for child in children if not " ".join(child.cmdline()).startswith("ray::ServeReplica"))]
    connections = [c for one in family if one.is_running() for c in one.net_connections("inet")]
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_the_lines_and_the_ports_of_a_start(toy_model: Path, tmp_path: Path) -> None:
    port = free_port()
    config = ROOT / "configs" / "serve" / "local.yaml"
    command = [sys.executable, "-m", "serve_apps.run", "--config", config, "--model", toy_model, "--port", port]
    process = Process(command, tmp_path / "serve.log")
    try:
        until(lambda: "interrupt to stop" in process.log(), "the service")
        text = process.log()
        parts = ("starting Ray", "stage 1", "stage 2", "the scene worker", "the gateway")
        assert [part for part in (*parts, f"at http://127.0.0.1:{port}") if part not in text] == [], text
        assert re.search(r"up to [\d,]+ px in [\d.]+ s", text)
        log = re.search(r"log: (\S+)", text)
        assert log is not None and any(Path(log[1]).glob("*Gateway*"))
        metrics = re.search(r"metrics: (\S+)", text)
        assert metrics is not None
        until(lambda: "ray_idgbr_model_state" in requests.get(metrics[1], timeout=60).text, "the metrics")
        addresses = listening(psutil.Process(process.pid))
        assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        # A page elsewhere whose name resolves to this machine gets nothing.
        answer = requests.get(f"http://127.0.0.1:{port}/v1/model", headers={"host": "rebound.example"}, timeout=60)
        assert answer.status_code == 421
    finally:
        process.terminate()
