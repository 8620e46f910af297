"""A Ray that this process starts: how it ends, and what is said where it cannot begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

JOB = """
import time
from idgbr.cli import JobFlags, run_job
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.session import start_ray

class Flags(JobFlags):
    pass

def main(flags):
    with start_ray(ResourcesConfig(logical_cpus=1)):
        try:
            print("ready", flush=True)
            time.sleep(300)
        finally:
            time.sleep(4)
            print("cleaned", flush=True)
    return {}

run_job(main, Flags, "A job that has something to put away.")
"""
SLOW_AGENTS = """
import sys, time
if any("agent" in word for word in sys.orig_argv):
    time.sleep(60)
"""
"""A sitecustomize: what a machine without a processor to spare does to Ray's agents."""


def start(folder: Path) -> subprocess.Popen[str]:
    (folder / "job.py").write_text(JOB)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, "job.py"], cwd=folder, env=os.environ | {"PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_terminated_driver_may_take_its_time_to_clean_up(tmp_path: Path) -> None:
    """Ray's own handler would abort it after three seconds, with runs left open and another exit code."""
    with start(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        lines = process.stdout.read().splitlines()
        assert process.wait(60) == 143
    assert lines[0] == "cleaned"
    assert json.loads(lines[-1])["exit_code"] == 143


def test_a_ray_that_starts_too_slowly_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENTS)
    with start(tmp_path) as process:
        out, said = process.communicate(timeout=200)
        assert process.returncode == 2, said
    assert "too busy" in json.loads(out.splitlines()[-1])["message"]
    assert "Traceback" not in said
