"""Jobs as processes: flags, help, exit codes, the last line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from idgbr.cli import ExperimentFlags, JobFlags, Switch, parse_job
from idgbr.config.keys import nodes, walk
from idgbr.config.tree import Experiment
from idgbr.errors import UserError

JOB = '''
"""A job of the tests."""
import sys
from idgbr.cli import ExperimentFlags, run_job
from idgbr.errors import Refused, UserError

class Flags(ExperimentFlags):
    end: str = "well"
    """How it ends."""

def main(flags, experiment):
    if flags.end == "refused":
        raise Refused("the challenger is worse")
    if flags.end == "user":
        raise UserError("scene.tif: truncated")
    if flags.end == "remote":
        try:
            raise UserError("scene.tif: truncated")
        except UserError as error:
            raise RuntimeError("task failed") from error
    if flags.end == "bug":
        raise ZeroDivisionError("oops")
    if flags.end == "wait":
        try:
            print("ready", flush=True)
            sys.stdin.read()
        finally:
            print("cleaned", flush=True)
    return {"steps": experiment.training.refiner.steps}

run_job(main, Flags, __doc__)
'''

CONFIG = """
data:
  name: toy
  source: {kind: synthetic, folder: scenes}
  classes: [{name: ground, colour: "#000000"}, {name: roof, colour: "#ff0000"}]
"""


class Flags(ExperimentFlags):
    start: str = Field("", alias="from")
    """Registered model to start from."""
    fresh: Switch = False
    """Start anew."""
    input: list[str] = []
    """Scenes."""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(CONFIG)
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


def run(job: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "job.py", "--config", "toy.yaml", *words]
    return subprocess.run(command, cwd=job, capture_output=True, text=True, timeout=120)


def test_flags_and_overrides(job: Path) -> None:
    words = ["--config", str(job / "toy.yaml"), "--from", "models:/toy@champion", "--fresh"]
    words += ["--input", "a,b.tif", "--input", "*.tif", "--training.refiner.steps", "400", "--training.refiner.lr=3e-4"]
    words += ["--data.bands", "1,nir", "--refiner.channels", "[8, 16]", "--data.gsd", "null"]
    words += ["--data.source.kind", "folder", "--data.source.images", "*.tif", "--data.source.pair", "[a-z]+(.*)"]
    words += ["--data.augmentation.dihedral", "false", "--data.label.values", '{"7": 1}']
    flags, experiment = parse_job(Flags, words)
    assert flags.start == "models:/toy@champion"
    assert flags.fresh
    assert flags.input == ["a,b.tif", "*.tif"]
    assert experiment is not None
    assert (experiment.training.refiner.steps, experiment.training.refiner.lr) == (400, 3e-4)
    assert experiment.data.bands == [1, "nir"]
    assert experiment.refiner.channels == [8, 16]
    assert experiment.data.gsd is None
    assert experiment.data.label.values == {7: 1}
    assert not experiment.data.augmentation.dihedral
    assert experiment.data.source.model_dump()["images"] == ["*.tif"]
    assert experiment.data.source.model_dump()["pair"] == "[a-z]+(.*)"


def test_flags_may_stand_without_an_experiment() -> None:
    class Own(JobFlags):
        coarse: str = ""
        """A map of one's own."""

    assert parse_job(Own, ["--coarse", "map.tif"]) == (Own(coarse="map.tif"), None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.refinr.steps", "4"], "--training.refinr.steps: unknown flag; the nearest known one is "
         "--training.refiner.steps"),
        (["--fresch"], "--fresch: unknown flag; the nearest known one is --fresh"),
        (["--training.refiner.steps"], "expected one argument"),
        (["steps"], "unexpected word 'steps'"),
        (["--data.bands", "[1,"], "is not a value"),
        (["--sampler.steps", "x"], "--sampler.steps: found 'x'; expected a whole number"),
    ],
)  # fmt: skip
def test_faults_of_the_command_line(job: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_job(Flags, ["--config", str(job / "toy.yaml"), *words])
    assert said in str(caught.value)


def test_help_lists_every_key_with_its_text(job: Path) -> None:
    done = run(job, "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for key, annotation in walk(Experiment):
        assert f"--{key} " in text
        assert nodes(annotation) or key
    assert "How it ends. (default: well)" in text
    assert "Optimiser" in text or "optimiser" in text
    assert "(default: 0.99)" in text


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        ("well", 0, "done"),
        ("refused", 1, "refused"),
        ("user", 2, "user_error"),
        ("remote", 2, "user_error"),
        ("bug", 3, "failed"),
    ],
)
def test_exit_codes_and_last_line(job: Path, end: str, code: int, status: str) -> None:
    done = run(job, "--end", end, "--training.refiner.steps", "7")
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == last["exit_code"] == code
    assert last["status"] == status
    assert ("Traceback" in done.stderr) == (code == 3)
    if code == 0:
        assert last["outputs"] == {"steps": 7}
    else:
        assert last["message"]
        assert last["message"] in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_job_clean_up(job: Path, number: int, code: int) -> None:
    command = [sys.executable, "job.py", "--config", "toy.yaml", "--end", "wait"]
    with subprocess.Popen(
        command, cwd=job, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell starts its background jobs deaf to SIGINT, and their children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        lines = process.stdout.read().splitlines()
        assert process.wait(60) == code
    assert lines[0] == "cleaned"
    assert json.loads(lines[-1])["status"] == "interrupted"


@pytest.mark.parametrize(
    ("word", "expected"), [("4", 4.0), ("null", None), ("{building: 4, tree: 1.5}", {"building": 4.0, "tree": 1.5})]
)
def test_a_key_that_is_a_number_or_a_mapping(word: str, expected: object) -> None:
    arguments = ["--config", "configs/demo.yaml", "--sampler.min_region", word]
    _, experiment = parse_job(ExperimentFlags, arguments)
    assert experiment is not None and experiment.sampler.min_region == expected


@pytest.mark.parametrize(
    ("word", "message"), [("{house: 4}", "no class 'house'; expected some of: ground"), ("-1", "found -1"), ("x", "x")]
)
def test_a_minimum_that_is_none_is_refused(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        parse_job(ExperimentFlags, ["--config", "configs/demo.yaml", "--sampler.min_region", word])
    assert "sampler.min_region" in str(refusal.value)


def test_a_pattern_that_the_shell_replaced_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.tif").touch()
    with pytest.raises(UserError, match=r"'b\.tif', which is a file: the shell.*Quote it"):
        parse_job(Files, ["--input", "a.tif", "b.tif"])
    flags, _ = parse_job(Files, ["--input", "[ab]*.tif"])
    assert flags.input == ["[ab]*.tif"]


class Files(JobFlags):
    input: list[str]
