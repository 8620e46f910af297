"""From rasters on disk to figures, JSON, tables and the report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rich.console import Console

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.errors import UserError
from idgbr.evaluation.baselines import available
from idgbr.evaluation.evaluate import evaluate_region, merge_methods, summarise
from idgbr.evaluation.maps import read_ids
from idgbr.evaluation.report import write_report
from idgbr.evaluation.result import EvaluationResult
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.windows import choose_fragmented, choose_windows, read_sample
from idgbr.raster.scene import Scene

CLASSES = [
    ClassSpec(name="ground", colour="#d8c9a3"),
    ClassSpec(name="roof <flat>", colour="#b5533c"),
    ClassSpec(name="tree", colour="#3c7a3c"),
    ClassSpec(name="never seen", colour="#000000"),
]


@dataclass(frozen=True)
class Region:
    id: str
    image: Scene
    label: str


def write(path: Path, values: np.ndarray, nodata: float | None, names: tuple[str, ...] = ()) -> str:
    bands = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=bands.shape[1],
        width=bands.shape[2],
        count=len(bands),
        dtype=bands.dtype,
        nodata=nodata,
        crs="EPSG:32633",
        transform=Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000),
    ) as file:
        file.write(bands)
        for i, name in enumerate(names, 1):
            file.set_band_description(i, name)
    return str(path)


def region(folder: Path, seed: int) -> tuple[Region, dict[str, str]]:
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 3, (6, 8), dtype=np.uint8), np.ones((16, 16), np.uint8))
    coarse, refined = np.roll(truth, 3, axis=1), np.roll(truth, 1, axis=1)
    image = np.stack([truth * 80 + rng.integers(0, 30, truth.shape, dtype=np.uint8) for _ in range(3)])
    labelled = truth.copy()
    labelled[:, :8] = IGNORE
    doubt = (refined != truth).astype(np.uint8) * 200
    return (
        Region(
            f"r{seed}",
            Scene(write(folder / f"i{seed}.tif", image, None)),
            write(folder / f"l{seed}.tif", labelled, 255),
        ),
        {
            "coarse": write(folder / f"c{seed}.tif", coarse, 255),
            "refined": write(folder / f"r{seed}.tif", np.stack([refined, doubt]), 255, ("class", "uncertainty")),
        },
    )


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[tuple[Region, dict[str, str]]], list[dict[str, Tally]]]:
    folder = tmp_path_factory.mktemp("maps")
    regions = [region(folder, seed) for seed in range(3)]
    return regions, [evaluate_region(r, m, 4, 32, ["guided_filter", "grabcut", "densecrf"]) for r, m in regions]


@pytest.fixture(scope="module")
def result(measured: tuple[list[tuple[Region, dict[str, str]]], list[dict[str, Tally]]]) -> EvaluationResult:
    return summarise(
        reversed(measured[1]), CLASSES, data="fields", model="toy/1", block=32, bootstrap=200, commit="abc"
    )


def test_figures_of_a_split(result: EvaluationResult) -> None:
    assert list(result.methods) == ["coarse", "refined", *available(["guided_filter", "grabcut", "densecrf"])]
    assert list(result.scenes) == ["r0", "r1", "r2"]
    coarse, refined = result.methods["coarse"], result.methods["refined"]
    assert coarse.pixels == refined.pixels == 3 * 96 * 120
    assert coarse.class_iou[3] is None
    assert all(interval.above_zero for interval in result.intervals)
    assert result.block_changes == sorted(result.block_changes)
    assert sum(scores["refined"].pixels for scores in result.scenes.values()) == refined.pixels


def test_json_round_trip(result: EvaluationResult, tmp_path: Path) -> None:
    result.save(tmp_path / "result.json")
    assert EvaluationResult.load(tmp_path / "result.json") == result
    (tmp_path / "result.json").write_text("{}")
    for name in ("result.json", "missing.json"):
        with pytest.raises(UserError, match=name):
            EvaluationResult.load(tmp_path / name)


def test_tables_show_every_method(result: EvaluationResult) -> None:
    console = Console(width=200, record=True, file=StringIO())
    console.print(result.table())
    text, markdown = console.export_text(), result.markdown()
    for shown in (text, markdown):
        for method in ("coarse", "refined", "guided filter", "GrabCut band"):
            assert method in shown
        assert f"{100 * result.methods['refined'].miou:.2f}" in shown  # type: ignore[operator]
        assert "95 % interval" in shown
    assert (
        markdown.splitlines()[0].count("|")
        == markdown.splitlines()[1].count("|")
        == markdown.splitlines()[2].count("|")
    )


def test_report_is_one_file(
    measured: tuple[list[tuple[Region, dict[str, str]]], list[dict[str, Tally]]],
    result: EvaluationResult,
    tmp_path: Path,
) -> None:
    sources = {r.id: (r, m) for r, m in measured[0]}
    chosen = choose_windows(merge_methods(measured[1])["refined"], 2)
    assert [c.group for c in chosen] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
    assert len({(c.region, c.window) for c in chosen}) == 6
    assert chosen[0].change == max(c.change for c in chosen)
    assert chosen[-2].change == min(c.change for c in chosen)
    methods = merge_methods(measured[1])
    (fragmented,) = choose_fragmented(methods["coarse"], methods["refined"])
    samples = [read_sample(*sources[c.region], c) for c in [*chosen, fragmented]]
    assert samples[0].uncertainty is not None
    assert 0.7 < samples[0].uncertainty.max() < 0.8
    html = write_report(tmp_path / "new" / "report.html", result, samples).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", html)
    assert html.count("<figcaption>uncertainty</figcaption>") == 6
    assert html.count("<figcaption>coarse: before</figcaption>") == 1
    for heading in ("Fragments and boundaries", "Regions over the truth's", "IoU_imp per class, as the IDGBR release"):
        assert heading.replace("'", "&#39;") in html, heading
    assert "roof &lt;flat&gt;" in html
    assert len(html) < 5_000_000
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]


def test_report_of_a_coarse_map_alone_and_of_nothing_labelled(tmp_path: Path) -> None:
    nothing = np.full((40, 40), IGNORE, np.uint8)
    image = Scene(write(tmp_path / "i.tif", np.zeros((3, 40, 40), np.uint8), None))
    area = Region("empty", image, write(tmp_path / "l.tif", nothing, 255))
    for maps in (
        {"coarse": np.zeros((40, 40), np.uint8)},
        {m: np.zeros((40, 40), np.uint8) for m in ("coarse", "refined")},
    ):
        tallies = evaluate_region(area, maps, 4, 16)
        result = summarise([tallies], CLASSES, data="d", model="m", block=16, bootstrap=20)
        assert result.methods["coarse"].miou is None
        assert "–" in result.markdown()
        assert write_report(tmp_path / "report.html", result).exists()
        if "refined" in tallies:
            assert choose_windows(tallies["refined"]) == []


def test_classical_refiners_are_measured_with_the_minimum_mapping_unit_too(tmp_path: Path) -> None:
    area, maps = region(tmp_path, 0)
    specks = read_ids(maps["coarse"]).copy()
    specks[5::12, 20::12] = (specks[5::12, 20::12] + 1) % 3
    maps["coarse"] = write(tmp_path / "specks.tif", specks, 255)
    tallies = evaluate_region(area, maps, 4, 32, ["guided_filter"], min_pixels=[16, 16, 16, 0])
    assert list(tallies) == ["coarse", "coarse_merged", "refined", "guided_filter", "guided_filter_merged"]
    before, after = Scores.of(tallies["coarse"]), Scores.of(tallies["coarse_merged"])
    assert before.fragments > 4000 > 0 == after.fragments  # type: ignore[operator]
    assert after.miou > before.miou  # type: ignore[operator]
    result = summarise([tallies], CLASSES, data="d", model="m", block=32, bootstrap=0)
    assert "guided filter, merged" in result.markdown()
    assert list(evaluate_region(area, maps, 4, 32, ["guided_filter"], min_pixels=[0, 0, 0, 0])) == [
        "coarse", "refined", "guided_filter",
    ]  # fmt: skip


def test_the_most_fragmented_block_is_shown(tmp_path: Path) -> None:
    area, maps = region(tmp_path, 1)
    specks = read_ids(maps["refined"]).copy()
    specks[65:95:3, 97:127:3] = 3
    tallies = evaluate_region(area, {**maps, "refined": specks}, 4, 32)
    (chosen,) = choose_fragmented(tallies["coarse"], tallies["refined"])
    assert (chosen.group, chosen.window.row, chosen.window.col) == ("fragments", 64, 96)


def test_maps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    area, maps = region(tmp_path, 0)
    with pytest.raises(UserError, match="needs the coarse map"):
        evaluate_region(area, {"refined": maps["refined"]}, 4)
    with pytest.raises(UserError, match="refined map: 96 x 100 px"):
        evaluate_region(area, {**maps, "refined": np.zeros((96, 100), np.uint8)}, 4)
    with pytest.raises(UserError, match=r"c0\.tif.*holds id 2"):
        evaluate_region(area, maps, 2)
    with pytest.raises(UserError, match=r"gone\.tif"):
        evaluate_region(area, {**maps, "refined": str(tmp_path / "gone.tif")}, 4)


def test_regions_measured_differently_do_not_add_up(tmp_path: Path) -> None:
    area, maps = region(tmp_path, 0)
    one = evaluate_region(area, maps, 4, 32)
    with pytest.raises(ValueError, match="different methods"):
        summarise([one, {"coarse": one["coarse"]}], CLASSES, data="d", model="m")
    with pytest.raises(ValueError, match="no region"):
        summarise([], CLASSES, data="d", model="m")
