"""Benchmarks, most of them in this process and its Ray: what they claim is checked, how fast they are is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import serve

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)
QUALITY = """
data:
  name: toy
  source: {{kind: synthetic, folder: {folder}/scenes, scenes: 3, size: 192}}
  classes: [{{name: ground, colour: "#c8c8a0"}}, {{name: building, colour: "#dc2828"}},
            {{name: road, colour: "#5a5a5a"}}, {{name: tree, colour: "#147814"}}, {{name: field, colour: "#f0dc3c"}}]
  split: {{by: listed}}
coarse: {{encoder: tu-mobilenetv3_small_050, weights: none, window: 64, folds: 0}}
refiner: {{window: 32, channels: [16, 32], guidance_width: 8, guidance_heads: 1, condition_depth: 1, image_encoder: "",
          self_conditioning: false}}
sampler: {{steps: 1, samples: 2, min_region: 2}}
training:
  coarse: {{steps: 2, batch: 2, validate_every: 2, validate_windows: 2}}
  refiner: {{steps: 2, batch: 2, validate_every: 2, validate_windows: 2, precision: fp32}}
inference: {{coarse: {{window: 96, overlap: 16}}, refiner: {{window: 64, overlap: 16}}}}
evaluation: {{baselines: [guided_filter], block: 64, bootstrap: 0}}
resources: {{storage: {folder}/runs, train_workers: 1, infer_workers: 1}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy experiment's file; what one benchmark trained of it, the next finds."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.yaml").write_text(QUALITY.format(folder=folder))
    return str(folder / "toy.yaml")


Benchmark = Callable[..., dict[str, Any]]


@pytest.fixture
def outputs(run_job: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Benchmark]:
    """Runs a benchmark in the checkout; its outputs."""
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()

    def run(*words: str) -> dict[str, Any]:
        done = run_job("benchmark", *words)
        assert done["exit_code"] == 0, done["text"]
        return dict(done["outputs"])

    yield run
    torch.set_num_threads(threads)


def test_the_savings_are_exact_and_counted(outputs: Benchmark) -> None:
    words = ["--channels", "16,32", "--latents", "8", "--steps", "3", "--guidance-width", "16", "--repeats", "1"]
    found = outputs("sampler", *words, "--also", "1x1")
    assert found["difference"] <= 1e-5
    assert 25 / 3 * (found["paper_tflop"]["ours"] - found["paper_tflop"]["prepared"]) + 0.6 <= 41
    assert 25 / 3 * found["paper_tflop"]["plain"] == pytest.approx(66.3, abs=0.2)


def test_what_a_dry_run_predicts_is_measured(outputs: Benchmark) -> None:
    found = outputs("cost", "--config", "configs/demo.yaml", "--batches", "1,2", "--steps", "1")
    assert [row["batch"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert row["step_seconds"] > 0 and row["window_seconds"] > 0 and row["predicted_gigabytes"] > 0
        assert row["gigabytes"] is None or row["gigabytes"] < row["predicted_gigabytes"]


def test_every_file_and_order_is_read(outputs: Benchmark) -> None:
    found = outputs("read", "--size", "512", "--windows", "20", "--window", "64", "--repeats", "1")
    assert len(found["ratios"]) == 4 and all(ratio > 0 for ratio in found["ratios"].values())


SETTINGS = "steps=2,mean_field={rounds: 1, weight: 2.0},samples=1"


@pytest.mark.soak
def test_quality_of_refiner_and_control_in_one_command(ray_session: None, outputs: Benchmark, toy: str) -> None:
    found = outputs("quality", "--config", toy, "--settings", SETTINGS, "--seeds", "3", "--control", "[1]")
    assert Path(found["figure"]).stat().st_size > 0
    points = {point["name"]: point for point in json.loads(Path(found["table"]).read_text())}
    merged = {"coarse_merged", "guided_filter_merged"}  # with the refiner's minimum mapping unit
    assert set(points) == {"coarse", "guided_filter", "default", SETTINGS, "one-shot x 1"} | merged
    assert points["default"]["scores"]["fragments"] == points["coarse_merged"]["scores"]["fragments"] == [0.0]
    assert all(
        len(point["scores"][figure]) == 1 for point in points.values() for figure in ("regions", "boundary_length")
    )
    assert len(points["default"]["scores"]["miou"]) == 1 and points["default"]["seconds"] > 0
    assert points["one-shot x 1"]["scores"] != points["default"]["scores"]


@pytest.mark.slow
def test_service_and_predictor_agree_and_are_compared(ray_session: None, outputs: Benchmark, toy: str) -> None:
    serve.shutdown()  # what other tests left runs at their address, which the benchmark's would take over
    found = outputs("serve", "--config", toy, "--size", "100", "--requests", "4", "--concurrency", "1,2",
                    "--sampler.min_region", "0")  # fmt: skip
    assert found["pixels_equal"] >= 0.999 and found["ratio"] > 0
    assert set(found["per_s"]) == {"1", "2"} and all(len(found["percentiles_ms"][n]) == 3 for n in ("1", "2"))
    assert found["where_ms"]["stage 1: model"] > 0 and found["where_ms"]["stage 2: model"] > 0


@pytest.mark.soak
def test_training_and_a_bare_loop_are_compared(ray_session: None, outputs: Benchmark, toy: str) -> None:
    found = outputs("train", "--config", toy, "--steps", "2", "--rounds", "1")
    assert set(found["steps_per_s"]) == set(found["bare_steps_per_s"]) == {"1", "2"}
    assert all(found[name] > 0 for name in ("ratio", "ratio_processor", "speedup", "bare_speedup"))
    assert set(found["where_ms"]) == {
        "reading, in other processes", "waiting for windows", "normalising, augmenting",
        "forward, backward, optimiser: bare", "beyond bare: all-reduce, waiting for each other", "the rest",
    }  # fmt: skip


@pytest.mark.soak
def test_refined_scenes_and_a_bare_loop_agree_and_are_compared(ray_session: None, outputs: Benchmark, toy: str) -> None:
    found = outputs("scene", "--config", toy, "--size", "128", "--scenes", "2", "--repeats", "1")
    assert found["pixels_equal"] >= 0.98
    assert set(found["mpx_per_s"]) == set(found["bare_mpx_per_s"]) == set(found["startup_s"]) == {"1", "2"}
    assert len(found["where_s_per_mpx"]) == 6


@pytest.mark.soak
def test_memory_is_seen_and_a_killed_scene_goes_on(outputs: Benchmark) -> None:
    """`make test-slow` kills a refinement in test_chaos.py, `make test` measures memory in raster/test_cog.py."""
    found = outputs("memory", "--sizes", "256,768", "--window", "64", "--workers", "1", "--kill")
    assert set(found["peak_mib"]) == {"256", "768"}
    assert all(
        50 < peak[who] < peak["together"] < 20_000
        for peak in found["peak_mib"].values()
        for who in ("driver", "worker")
    )
    assert all(peak["polygons"] > 50 for peak in found["peak_mib"].values())
    assert 0 < found["windows_after_kill"] < found["windows"]


@pytest.mark.soak
def test_what_nodes_cost_is_seen() -> None:
    """In a process of its own: it counts the raylets that it started, of which this one has some."""
    command = [sys.executable, "jobs/benchmark.py", "nodes", "--nodes", "1,2", "--size", "256", "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["outputs"]
    for run in found["runs"].values():
        assert all(run[key] > 0 for key in ("gcs_mib", "gcs_seconds", "raylet_seconds", "driver_seconds"))
        assert run["driver_mib"] > 100
    assert found["runs"]["2"]["processes"] > 2
