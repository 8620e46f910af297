"""Window plans and the blending of their values."""

from __future__ import annotations

import numpy as np
import pytest

from idgbr.raster.blending import StripBlender
from idgbr.raster.grid import Window
from idgbr.raster.windows import plan_windows, rows_of, taper

SHAPES = [(100, 130), (33, 200), (20, 20), (32, 32), (57, 31), (1, 1)]
OFFSETS = [(0, 0), (32, 96), (-64, 3), (100, 41)]


def _blend(height: int, width: int, offset: tuple[int, int], truth: np.ndarray, overlap: int = 12) -> np.ndarray:
    """Blends windows cut out of `truth` (C, H, W), which reaches 64 px beyond the scene on all sides."""
    plan = plan_windows(height, width, 32, overlap, offset)
    blender = StripBlender(height, width, len(truth), plan, 32, overlap)
    strips = []
    for window in plan:
        strips += list(blender.add(window, truth[:, *window.slices((-64, -64))]))
    strips += list(blender.finish())
    assert [row for row, _ in strips] == np.cumsum([0] + [s.shape[1] for _, s in strips])[:-1].tolist()
    return np.concatenate([strip for _, strip in strips], axis=1)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_plan_covers_every_pixel_with_weight(height: int, width: int, offset: tuple[int, int]) -> None:
    weight = np.zeros((height + 128, width + 128))
    plan = plan_windows(height, width, 32, 12, offset)
    for window in plan:
        weight[window.slices((-64, -64))] += taper(32, 12)
    assert (weight[64:-64, 64:-64] > 0).all()
    assert plan == sorted(plan)
    if height <= 32 and width <= 32:
        assert len(plan) == 1


def test_plan_is_anchored_to_the_scene() -> None:
    small, large = plan_windows(300, 300, 64, 16), plan_windows(300, 900, 64, 16)
    assert {w for w in large if w.col < 200} == {w for w in small if w.col < 200}


def test_offsets_move_windows_by_whole_anchors() -> None:
    assert {w.row % 32 for w in plan_windows(500, 500, 96, 32, (37, 53))} == {0}
    assert plan_windows(500, 500, 96, 32, (37, 53)) == plan_windows(500, 500, 96, 32, (32, 32))
    assert plan_windows(500, 500, 96, 32, (37, 53)) != plan_windows(500, 500, 96, 32)
    assert [w.row % 32 for w in plan_windows(50, 50, 96, 32, (40, 53))] == [0]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_rows_hold_every_window_once_and_nothing_else(height: int, width: int, offset: tuple[int, int]) -> None:
    plan = plan_windows(height, width, 32, 12, offset)
    rows = list(rows_of(plan))
    assert [window for _, windows in rows for window in windows] == plan
    assert [whole.row for whole, _ in rows] == sorted({window.row for window in plan})
    ground = np.arange((height + 128) * (width + 128)).reshape(height + 128, width + 128)
    for whole, windows in rows:
        pixels = ground[whole.slices((-64, -64))]
        seen = np.zeros(pixels.shape, bool)
        for window in windows:
            part = window.slices((whole.row, whole.col))
            np.testing.assert_array_equal(pixels[part], ground[window.slices((-64, -64))])
            seen[part] = True
        assert seen.all()


def test_windows_apart_are_rows_of_their_own() -> None:
    apart = [Window(0, 0, 8, 8), Window(0, 9, 8, 8), Window(4, 12, 8, 8), Window(4, 12, 8, 8), Window(4, 16, 9, 8)]
    assert list(rows_of(apart)) == [(window, [window]) for window in apart]
    assert list(rows_of([])) == []
    touching = [Window(0, 0, 8, 8), Window(0, 8, 8, 8)]
    assert list(rows_of(touching)) == [(Window(0, 0, 8, 16), touching)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_rows_in_a_file_blend_as_those_in_memory(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.random.default_rng(0).random((2, height + 128, width + 128), np.float32)
    in_memory = _blend(height, width, (5, 7), truth)
    monkeypatch.setattr("idgbr.raster.blending._MEMORY_BYTES", 0)
    np.testing.assert_array_equal(_blend(height, width, (5, 7), truth), in_memory)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_constant_and_ramp_come_back(height: int, width: int, offset: tuple[int, int]) -> None:
    rows, cols = np.mgrid[-64 : height + 64, -64 : width + 64].astype(np.float32)
    truth = np.stack([np.full_like(rows, 0.7), rows * 2 - cols])
    blended = _blend(height, width, offset, truth)
    np.testing.assert_allclose(blended, truth[:, 64:-64, 64:-64], rtol=1e-6, atol=1e-4)


def test_strips_of_wide_scenes_are_low_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idgbr.raster.blending._STRIP_BYTES", 5000)
    rows, cols = np.mgrid[-64:164, -64:464].astype(np.float32)
    blended = _blend(100, 400, (3, 3), (rows + cols)[None])
    np.testing.assert_allclose(blended[0], (rows + cols)[64:-64, 64:-64], atol=1e-3)


def test_begun_in_the_middle_the_rest_is_the_same() -> None:
    truth = np.random.default_rng(0).random((2, 228, 228), dtype=np.float32)
    whole = _blend(100, 100, (0, 0), truth)
    plan = [window for window in plan_windows(100, 100, 32, 12) if window.stop_row > 47]
    blender = StripBlender(100, 100, 2, plan, 32, 12, first=47)
    strips = [s for w in plan for s in blender.add(w, truth[:, *w.slices((-64, -64))])] + list(blender.finish())
    assert strips[0][0] == 47
    np.testing.assert_array_equal(np.concatenate([strip for _, strip in strips], axis=1), whole[:, 47:])


def test_a_window_of_no_trust_counts_only_where_it_is_alone() -> None:
    plan = plan_windows(32, 52, 32, 12)
    blender = StripBlender(32, 52, 1, plan, 32, 12)
    strips = [s for w in plan for s in blender.add(w, np.full((1, 32, 32), float(w.col > 0)), 1.0 if w.col else 1e-6)]
    line = np.concatenate([s for _, s in strips + list(blender.finish())], axis=1)[0, 16]
    assert (line[:20] == 0).all() and (line[21:] > 0.99).all()


def test_no_seam_between_windows_that_disagree() -> None:
    plan = plan_windows(32, 52, 32, 12)
    blender = StripBlender(32, 52, 1, plan, 32, 12)
    strips = [s for w in plan for s in blender.add(w, np.full((1, 32, 32), float(w.col > 0)))]
    line = np.concatenate([s for _, s in strips + list(blender.finish())], axis=1)[0, 16]
    assert line[0] == 0
    assert line[-1] == 1
    assert np.abs(np.diff(line)).max() < 0.15


def test_order_and_completeness_are_checked() -> None:
    plan = plan_windows(64, 64, 32, 8)
    blender = StripBlender(64, 64, 1, plan, 32, 8)
    with pytest.raises(ValueError, match="order"):
        list(blender.add(plan[1], np.zeros((1, 32, 32))))
    with pytest.raises(ValueError, match="not added"):
        list(blender.finish())
