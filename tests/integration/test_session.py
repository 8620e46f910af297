"""A Ray that this process starts: how it ends, and what is said where it cannot begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

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


@pytest.mark.slow
def test_a_ray_that_starts_too_slowly_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENTS)
    with start(tmp_path) as process:
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                names = [child.name() for child in psutil.Process(process.pid).children()]
                assert names.count("gcs_server") <= 1, "what did not start in time still runs"
            time.sleep(0.5)
        out, said = process.communicate(timeout=60)
        assert process.returncode == 2, said
    assert "too busy" in json.loads(out.splitlines()[-1])["message"]
    assert "Traceback" not in said


QUIET = """
import ray
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.session import start_ray

class Add:
    def __init__(self, number):
        self.number = number
    def __call__(self, batch):
        return {"id": batch["id"] + ray.get(self.number)}

with start_ray(ResourcesConfig(logical_cpus=2)):
    rows = ray.data.range(8).map_batches(Add, fn_constructor_args=(ray.put(1),), concurrency=1).take_all()
    print(sorted(row["id"] for row in rows))
"""


def test_a_long_tmpdir_is_no_obstacle_and_ray_says_nothing_that_is_not_for_users(tmp_path: Path) -> None:
    """Ray's sockets have no room in such a folder; an actor with arguments in the object store alarms its C++ side."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{list(range(1, 9))}\n"
    # The one line that says at which level Ray's C++ side writes.
    assert [line for line in done.stderr.splitlines() if "Set ray log level" not in line] == []
