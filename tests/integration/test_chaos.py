"""Losing workers, drivers, disks: training and refining end as if nothing had been."""

from __future__ import annotations

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
from test_resume import start
from toys import toy_stage, trajectory

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.checkpoints import Checkpoints
from idgbr.distributed.training import run_stage
from idgbr.errors import UserError

pytestmark = pytest.mark.slow
STEPS, BATCH = 24, 6
PLANNED = {step: list(range(step * BATCH, (step + 1) * BATCH)) for step in range(STEPS)}


def test_workers_killed_three_times(ray_session: None, tmp_path: Path) -> None:
    """Every planned draw counts once, and the curve is the undisturbed one."""
    chaos, runs, resources = tmp_path / "chaos", str(tmp_path / "runs"), ResourcesConfig(train_workers=2)
    chaos.mkdir()
    for step in random.Random(6).sample(range(1, STEPS), 3):
        (chaos / f"kill-{step}-{step % 2}").touch()
    shape = {"steps": STEPS, "batch": BATCH, "validate_every": 4}
    disturbed = run_stage(toy_stage(tmp_path, "killed", chaos=str(chaos), **shape), resources, runs)
    assert not list(chaos.glob("kill-*"))
    assert trajectory(chaos) == PLANNED
    plain = run_stage(toy_stage(tmp_path, "plain", **shape), resources, runs)
    for one, other in zip(disturbed.history, plain.history, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_killed_refinement_goes_on_where_it_was(worker_path: None, tmp_path: Path, toy_model: Path) -> None:
    """Killed once rows of the map are written, the same command predicts the missing windows only."""
    driver = start("drive_refine.py", tmp_path, str(toy_model), "maps")
    rows = 160 * 640 * 4  # three rows of windows: class ids and the probabilities of three classes
    while not any(path.stat().st_size >= rows for path in (tmp_path / "maps").glob(".refining/*/maps/*/rows")):
        assert driver.poll() is None, "the driver ended before it wrote rows"
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert not list((tmp_path / "maps").glob("*.tif"))
    told = {}
    for output in ("maps", "undisturbed"):
        driver = start("drive_refine.py", tmp_path, str(toy_model), output)
        told[output], _ = driver.communicate()
        assert driver.returncode == 0
    counts = {output: re.findall(r"(coarse|refined) maps: (\d+) of \2", text) for output, text in told.items()}
    every = dict(counts["undisturbed"])
    assert every["coarse"] == every["refined"]
    left = dict(counts["maps"])
    assert list(left) == ["refined"] and 0 < int(left["refined"]) < int(every["refined"])
    maps = [rasterio.open(tmp_path / output / "scene_image.tif").read() for output in told]
    np.testing.assert_array_equal(*maps)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["scene_image.tif"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; only root may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_stops_training_clearly(ray_session: None, tmp_path: Path, small_disk: Path) -> None:
    """The last good checkpoint stays, and once there is room the same command resumes."""
    chaos, resources = tmp_path / "chaos", ResourcesConfig(train_workers=1)
    chaos.mkdir()
    (chaos / "fill-5").write_text(str(small_disk / "filler"))
    spec = toy_stage(tmp_path, "full", chaos=str(chaos), validate_every=4)
    checkpoints = Checkpoints(small_disk / "full" / "checkpoints")
    with pytest.raises(
        UserError, match=r"checkpoint of step 8 .*No space left.*last good one is step-00000004"
    ) as told:
        run_stage(spec, resources, str(small_disk))
    assert str(checkpoints.folder) in str(told.value)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000004"]
    assert checkpoints.newest() is not None
    (small_disk / "filler").unlink()
    resumed = run_stage(spec, resources, str(small_disk))
    assert (
        resumed.history == run_stage(toy_stage(tmp_path, "plain", validate_every=4), resources, str(tmp_path)).history
    )
