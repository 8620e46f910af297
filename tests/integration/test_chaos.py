"""Losing workers, drivers, disks: training and refining end as if nothing had been."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from drive_refine import main as drive_refine
from test_resume import start
from toys import PLANNED, SHAPE, STEPS, toy_stage, trajectory

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.fitting.stage import StageResult
from idgbr.distributed.fitting.training import run_stage
from idgbr.errors import UserError
from idgbr.training.checkpoints import Checkpoints


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.soak)])
def test_killed_workers(ray_session: None, undisturbed: list[dict[str, float]], tmp_path: Path, times: int) -> None:
    """Every planned draw counts once, and the curve is the undisturbed one."""
    chaos = tmp_path / "chaos"
    chaos.mkdir()
    for step in random.Random(6).sample(range(1, STEPS), times):
        (chaos / f"kill-{step}-{step % 2}").touch()
    spec = toy_stage(tmp_path, "killed", chaos=str(chaos), **SHAPE)
    disturbed = run_stage(spec, ResourcesConfig(train_workers=2), str(tmp_path / "runs"))
    assert not list(chaos.glob("kill-*"))
    assert trajectory(chaos) == PLANNED
    for one, other in zip(disturbed.history, undisturbed, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.slow
def test_killed_refinement_goes_on_where_it_was(
    ray_session: None, tmp_path: Path, toy_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed once rows of the map are written, the same command predicts the missing windows only."""
    driver = start("drive_refine.py", tmp_path, str(toy_model), "maps")
    rows = 160 * 640 * 4  # three rows of windows: class ids and the probabilities of three classes
    while not any(path.stat().st_size >= rows for path in (tmp_path / "maps").glob(".refining/*/maps/*/rows")):
        assert driver.poll() is None, "the driver ended before it wrote rows"
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert not list((tmp_path / "maps").glob("*.tif"))
    printed = {}
    # In the session's Ray, another one than it began in, as on any other day; the undisturbed map by this process.
    for output, in_process_windows in (("maps", 0), ("undisturbed", 1000)):
        capsys.readouterr()
        drive_refine(tmp_path, str(toy_model), output, in_process_windows)
        printed[output] = capsys.readouterr().out
    counts = {output: re.findall(r"(coarse|refined) maps: (\d+) of \2", text) for output, text in printed.items()}
    every = dict(counts["undisturbed"])
    assert every["coarse"] == every["refined"]
    left = dict(counts["maps"])
    assert list(left) == ["refined"] and 0 < int(left["refined"]) < int(every["refined"])
    maps = [rasterio.open(tmp_path / output / "scene_image.tif").read() for output in printed]
    np.testing.assert_array_equal(*maps)
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"scene_image.tif", "scene_image.qml"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; only root may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_full_disk_stops_training_clearly(
    ray_session: None, twelve_steps: StageResult, tmp_path: Path, small_disk: Path
) -> None:
    """The last good checkpoint stays, and once there is room the same command resumes."""
    chaos, resources = tmp_path / "chaos", ResourcesConfig(train_workers=1, max_failures=1)
    chaos.mkdir()
    (chaos / "fill-5").write_text(str(small_disk / "filler"))
    spec = toy_stage(tmp_path, "full", chaos=str(chaos), validate_every=4)
    checkpoints = Checkpoints(small_disk / "full" / "checkpoints")
    with pytest.raises(
        UserError, match=r"checkpoint of step 8 .*No space left.*last good one is step-00000004"
    ) as raised:
        run_stage(spec, resources, str(small_disk))
    assert str(checkpoints.folder) in str(raised.value)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000004"]
    assert checkpoints.newest() is not None
    (small_disk / "filler").unlink()
    resumed = run_stage(spec, resources, str(small_disk))
    assert resumed.history == twelve_steps.history


@pytest.mark.slow
def test_storage_that_may_not_be_written_any_more_stops_training_clearly(
    ray_session: None, tmp_path: Path, small_disk: Path
) -> None:
    """On a file system that became read-only, the last good checkpoint stays, and training goes on from it later."""
    chaos, resources = tmp_path / "chaos", ResourcesConfig(train_workers=1, max_failures=0)
    chaos.mkdir()
    (chaos / "lock-5").write_text(str(small_disk))
    spec = toy_stage(tmp_path, "locked", chaos=str(chaos), validate_every=4)
    with pytest.raises(
        UserError, match=r"checkpoint of step 8 .*Read-only.*last good one is step-00000004.*it resumes"
    ):
        run_stage(spec, resources, str(small_disk))
    with pytest.raises(UserError, match=r"locked: cannot be written \(Read-only"):
        run_stage(spec, resources, str(small_disk))
    checkpoints = Checkpoints(small_disk / "locked" / "checkpoints")
    newest = checkpoints.newest()
    assert newest is not None and newest.name == "step-00000004"
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert [point["step"] for point in run_stage(spec, resources, str(small_disk)).history] == [4, 8, 12]
    assert "resumes at step 4 of 12" in (small_disk / "locked" / "progress.log").read_text()
    assert trajectory(chaos) == {step: PLANNED[step] for step in range(12)}


@pytest.mark.slow
def test_checkpoints_in_a_bucket_outlive_worker_and_folder(
    ray_session: None, undisturbed: list[dict[str, float]], bucket: object, tmp_path: Path
) -> None:
    """A killed worker goes on from the bucket; where the runs' folder is lost, the same command has all from there."""
    chaos = tmp_path / "chaos"
    chaos.mkdir()
    (chaos / "kill-10-1").touch()
    # The workers are older than the server, so the address says what their environment would.
    server = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    uri = f"s3://test:test@maps/runs?scheme=http&region=us-east-1&endpoint_override={server}"
    resources = ResourcesConfig(train_workers=2, checkpoints=uri)
    spec = toy_stage(tmp_path, "stored", chaos=str(chaos), **SHAPE)
    first = run_stage(spec, resources, str(tmp_path / "runs"))
    assert f"resumes at step 8 of {STEPS}" in (tmp_path / "runs" / "stored" / "progress.log").read_text()
    assert not list((tmp_path / "runs").rglob("step-*"))
    assert trajectory(chaos) == PLANNED
    for one, other in zip(first.history, undisturbed, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    (chaos / "draws").unlink()
    again = run_stage(spec, resources, str(tmp_path / "elsewhere"))
    assert again.history == first.history and not (chaos / "draws").exists()
    assert Path(again.weights).read_bytes() == Path(first.weights).read_bytes()
