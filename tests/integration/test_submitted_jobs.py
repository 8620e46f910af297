"""The lines of docs/cluster.md, typed into a shell: jobs submitted to a running Ray that asks for a token."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import rasterio
from following import Process, Store, free_port, until
from test_resume import environment

ROOT = Path(__file__).parents[2]
TOY = (
    "--data.source.scenes 3 --data.source.size 256 --coarse.encoder tu-mobilenetv3_small_050 --coarse.weights none "
    "--coarse.window 64 --coarse.folds 0 --refiner.window 64 --refiner.channels [16,32] "
    "--refiner.attention_head_dim 8 --refiner.guidance_width 8 --refiner.guidance_heads 1 --refiner.condition_depth 1 "
    "--refiner.image_encoder '' --training.coarse.steps 4 --training.refiner.steps 4 "
    "--training.coarse.validate_every 2 --training.refiner.validate_every 2 --inference.coarse.window 128 "
    "--evaluation.baselines [guided_filter] --evaluation.block 64 --gate.source.size 256 "
    "--gate.floors '{miou: 0}' --gate.ceilings '{repair_worse: 1}' --gate.blocks 8 --resources.cpus_per_worker 0.5 "
    "--resources.infer_workers 1 --resources.train_workers 1"
)
"""What makes the demo's experiment one of seconds, whose model passes any gate."""
ADDED = {"refine": "--cpus-per-worker 0.5 --workers 1"}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def block() -> tuple[str, list[str]]:
    """The page's block that submits jobs: what it exports, and the commands, each on a line."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", (ROOT / "docs/cluster.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if "ray job submit" in text]
    export, *lines = found.replace("\\\n", " ").splitlines()
    return export, lines


@dataclass(frozen=True)
class Place:
    """A head with its job server, a store of models, and the shell that knows where they are."""

    jobs: str
    token: Path
    store: Store
    folder: Path

    def export(self) -> str:
        """The page's line, with this head's address for the one of a head that has the machine to itself."""
        line, _ = block()
        assert "http://127.0.0.1:8265" in line
        return line.replace("http://127.0.0.1:8265", self.jobs)

    def type(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a shell in the checkout, which has the token and nothing else of Ray, says to a line."""
        known = {"MLFLOW": self.store.uri, "STORAGE": str(self.folder / "storage"), "MAPS": str(self.folder / "maps"),
                 "SCENES": str(self.folder / "storage/synthetic/scene_0_*_02_*_image.tif")}  # fmt: skip
        return subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=shell(self.token) | known | environment, capture_output=True,
            text=True, timeout=1500,
        )  # fmt: skip


def shell(token: Path) -> dict[str, str]:
    """A user's environment: the virtual environment is active, the package comes from where it is installed."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return environment(token) | {"PATH": path, "PYTHONPATH": ""}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    token, port = folder / "token", free_port()
    # Ports of its own: another Ray of this machine may have the usual ones.
    command = ["ray", "start", "--head", "--block", "--port", free_port(), "--dashboard-port", port]
    command += ["--dashboard-agent-listen-port", free_port()]
    command += ["--num-cpus", 4, "--object-store-memory", 300 * 2**20]
    store = Store(folder)
    head = Process(command, folder / "head.log", shell(token))
    made = Place(f"http://127.0.0.1:{port}", token, store, folder)
    try:
        # Its agent joins later than it answers.
        until(lambda: head.lives() and not made.type(f"{made.export()}\nray job submit -- true").returncode, "jobs")
        yield made
    finally:
        head.kill()  # Ray's workers see that it is gone; asked to end, it would wait half a minute for them
        store.kill()


def test_the_lines_run_one_after_another(place: Place) -> None:
    """Trained and registered, measured, promoted, and scenes mapped by the champion."""
    _, lines = block()
    assert [re.findall(r"jobs/(\w+)\.py", line) for line in lines] == [["train"], ["evaluate"], ["promote"], ["refine"]]
    for line in lines:
        (job,) = re.findall(r"jobs/(\w+)\.py", line)
        done = place.type(f"{place.export()}\n{line} {ADDED.get(job, TOY)}")
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        assert '"status": "done", "exit_code": 0' in done.stdout
        assert place.token.read_text() not in done.stdout + done.stderr
    versions = place.store.client.search_model_versions("name='idgbr-demo'")
    assert [version.version for version in versions] == ["1"]
    assert place.store.client.get_model_version_by_alias("idgbr-demo", "champion").version == "1"
    runs = place.store.client.search_runs([place.store.client.get_run(versions[0].run_id).info.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert list((place.folder / "storage").rglob("*.html"))
    (mapped,) = (place.folder / "maps").glob("*.tif")
    with rasterio.open(mapped) as refined:
        assert (refined.shape, refined.crs.to_epsg(), refined.nodata) == ((256, 256), 32633, 255)
    kept = [path for path in (place.folder / "artifacts").rglob("*") if path.is_file()]
    secret = place.token.read_bytes()
    assert kept and not [path for path in [*kept, place.folder / "mlflow.db"] if secret in path.read_bytes()]


def test_without_the_token_nothing_is_submitted(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.write_text("fedcba9876543210" * 4)
    said = place.type(f"{place.export()}\nray job submit -- true", RAY_AUTH_TOKEN_PATH=str(other))
    assert said.returncode != 0
    assert "submitted successfully" not in said.stdout
    assert "token authentication is enabled" in said.stderr.lower()
