"""The predictor and the model folder it loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.inference.predictor import Predictor
from idgbr.inference.whole import ArrayScene, predict_whole
from idgbr.models.description import load_sample

CLASSES = 3


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    valid = np.ones((2, 40, 52), bool)
    valid[:, :, :5] = False
    return generator.integers(0, 255, (2, 3, 40, 52), dtype=np.uint8), valid


def test_both_stages_of_windows_of_any_size(toy_model: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    predictor = Predictor(toy_model)
    coarse = predictor.coarse(*images)
    refined = predictor.refine(*images, coarse, np.array([[0, 0], [7, 1000]]))
    for probabilities in (coarse, refined.probabilities):
        assert probabilities.shape == (2, CLASSES, 40, 52)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)
    assert refined.uncertainty.shape == (2, 40, 52)


def test_what_lies_under_invalid_pixels_changes_nothing(toy_model: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    predictor = Predictor(toy_model)
    pixels, valid = images
    other = np.where(valid[:, None], pixels, 200).astype(np.uint8)
    np.testing.assert_array_equal(predictor.coarse(pixels, valid), predictor.coarse(other, valid))


def test_a_window_that_sticks_out_says_what_the_scene_alone_says(toy_model: Path) -> None:
    predictor = Predictor(toy_model)
    scene = np.random.default_rng(2).integers(0, 255, (1, 3, 128, 150), dtype=np.uint8)
    window, valid = np.zeros((1, 3, 224, 224), np.uint8), np.zeros((1, 224, 224), bool)
    inside = np.s_[..., 32:160, :150]  # the window begins 32 rows above the scene
    window[inside], valid[inside] = scene, True
    coarse = predictor.coarse(window, valid)
    np.testing.assert_allclose(coarse[inside], predictor.coarse(scene, valid[inside]), atol=1e-6)
    np.testing.assert_allclose(coarse.sum(1), 1, atol=1e-6)
    assert np.ptp(coarse[:, :, 160:], axis=1).max() == 0, "where there is no scene, no class is likelier"
    nowhere = predictor.coarse(window, np.zeros_like(valid))
    assert np.ptp(nowhere, axis=1).max() == 0


def test_a_strip_in_a_window_is_mirrored_to_what_any_decoder_takes(toy_model: Path) -> None:
    predictor = Predictor(toy_model)
    window = np.random.default_rng(3).integers(0, 255, (1, 3, 160, 160), dtype=np.uint8)
    strip = np.zeros((1, 160, 160), bool)
    strip[:, :50] = True
    mirrored = np.pad(window[:, :, :50], ((0, 0), (0, 0), (0, 78), (0, 0)), mode="reflect")
    expected = predictor.coarse(mirrored, np.ones((1, 128, 160), bool))
    np.testing.assert_allclose(predictor.coarse(window, strip)[:, :, :50], expected[:, :, :50], atol=1e-6)


def test_own_coarse_ids(toy_model: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    ids = np.full((2, 40, 52), 2, np.uint8)
    ids[:, :, :5] = IGNORE
    predictor = Predictor(toy_model, parts=("refiner",))
    assert predictor.refine(*images, ids, np.zeros((2, 2), int)).probabilities.shape == (2, CLASSES, 40, 52)
    ids[0, 20, 20] = 9
    with pytest.raises(UserError, match="class id 9 is unknown"):
        predictor.refine(*images, ids, np.zeros((2, 2), int))
    with pytest.raises(UserError, match="no stage 1"):
        predictor.coarse(*images)


def test_a_whole_scene_is_the_same_from_any_read(toy_model: Path) -> None:
    predictor = Predictor(toy_model)
    image = np.random.default_rng(1).integers(0, 255, (3, 90, 70), dtype=np.uint8)
    first, second = (predict_whole(predictor, ArrayScene(image), 90, 70) for _ in range(2))
    np.testing.assert_array_equal(first.refined, second.refined)
    assert first.refined.shape == first.coarse.shape == (90, 70)
    assert first.refined.max() < CLASSES
    holed = image.astype(np.float32)
    holed[:, :10] = np.nan
    assert (predict_whole(predictor, ArrayScene(holed), 90, 70).refined[:10] == IGNORE).all()


def test_the_sample_travels(toy_model: Path) -> None:
    sample = load_sample(toy_model)
    assert sample is not None and sample.expected.shape == sample.image.shape[1:]


def test_damage_is_named(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        Predictor(tmp_path)
    for name, content in (("model.json", b"{}"), ("refiner/model.safetensors", b"cut off")):
        broken = tmp_path / name.replace("/", "-")
        _copy(toy_model, broken)
        (broken / name).write_bytes(content)
        with pytest.raises(UserError, match=name.split("/")[0]):
            Predictor(broken)
    other = tmp_path / "other"
    _copy(toy_model, other)
    spec = json.loads((other / "model.json").read_text())
    spec["refiner"]["guidance_width"] = 16
    (other / "model.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="do not fit"):
        Predictor(other)


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
