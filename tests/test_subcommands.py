"""Jobs of several commands, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("job", ["convert", "benchmark"])
def test_help_lists_every_command_by_its_file(job: str) -> None:
    folder = {"convert": "jobs/conversions", "benchmark": "benchmarks"}[job]
    files = [path.stem for path in (ROOT / folder).glob("[!_]*.py")]
    shown = run(f"jobs/{job}.py", "--help")
    assert shown.returncode == 0
    assert all(f"    {name}" in shown.stdout for name in files)


def test_a_command_has_its_own_flags() -> None:
    shown = run("jobs/convert.py", "jsonl", "--help")
    assert shown.returncode == 0 and "--images" in shown.stdout
    wrong = run("jobs/convert.py", "jsonl", "--imges", "x", "--labels", "y", "--output", "z")
    assert wrong.returncode == 2 and "--images" in wrong.stderr


def test_an_unknown_command_is_refused_by_name() -> None:
    done = run("jobs/convert.py", "jsnol", "--images", "x")
    assert done.returncode == 2
    assert "'jsnol'" in done.stderr and "jsonl" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 2
