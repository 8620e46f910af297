"""The predictor and the model folder it loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from idgbr import IGNORE
from idgbr.config.tree import (
    ClassSpec,
    CoarseConfig,
    CoarseWindows,
    InferenceConfig,
    RefinerConfig,
    RefinerWindows,
    SamplerConfig,
)
from idgbr.datasets.normalisation import Normalisation
from idgbr.errors import UserError
from idgbr.inference.predictor import Predictor
from idgbr.inference.whole import ArrayScene, predict_whole
from idgbr.models.coarse import build_coarse
from idgbr.models.package import ModelSpec, Sample, load_sample, save_model
from idgbr.models.refiner import Refiner

CLASSES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    coarse = CoarseConfig(decoder="Unet", encoder="tu-mobilenetv3_small_050", weights="none")
    refiner = RefinerConfig(
        window=32,
        channels=[16, 32],
        attention_head_dim=8,
        guidance_width=8,
        guidance_heads=1,
        image_encoder="",
        coarse_input="probabilities",
    )
    spec = ModelSpec(
        name="toy",
        classes=[ClassSpec(name=f"class {i}", colour=f"#{i}{i}4080") for i in range(CLASSES)],
        bands=[1, 2, 3],
        gsd=0.5,
        normalisation=Normalisation((100.0,) * 3, (40.0,) * 3),
        inference=InferenceConfig(
            coarse=CoarseWindows(window=64, overlap=16), refiner=RefinerWindows(window=32, overlap=8)
        ),
        sampler=SamplerConfig(steps=1, samples=2),
        coarse=coarse,
        refiner=refiner,
    )
    parts = build_coarse(coarse, CLASSES, 3, pretrained=False), Refiner(CLASSES, 3, refiner.model_dump(), False)
    sample = Sample(np.zeros((3, 8, 8), np.uint8), np.ones((8, 8), np.uint8))
    return save_model(tmp_path_factory.mktemp("model") / "toy", spec, *parts, sample)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    valid = np.ones((2, 40, 52), bool)
    valid[:, :, :5] = False
    return generator.integers(0, 255, (2, 3, 40, 52), dtype=np.uint8), valid


def test_both_stages_of_windows_of_any_size(folder: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    predictor = Predictor(folder)
    coarse = predictor.coarse(*images)
    refined = predictor.refine(*images, coarse, np.array([[0, 0], [7, 1000]]))
    for probabilities in (coarse, refined.probabilities):
        assert probabilities.shape == (2, CLASSES, 40, 52)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)
    assert refined.uncertainty.shape == (2, 40, 52)


def test_what_lies_under_invalid_pixels_changes_nothing(folder: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    predictor = Predictor(folder)
    pixels, valid = images
    other = np.where(valid[:, None], pixels, 200).astype(np.uint8)
    np.testing.assert_array_equal(predictor.coarse(pixels, valid), predictor.coarse(other, valid))


def test_own_coarse_ids(folder: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    ids = np.full((2, 40, 52), 2, np.uint8)
    ids[:, :, :5] = IGNORE
    predictor = Predictor(folder, parts=("refiner",))
    assert predictor.refine(*images, ids, np.zeros((2, 2), int)).probabilities.shape == (2, CLASSES, 40, 52)
    ids[0, 20, 20] = 9
    with pytest.raises(UserError, match="class id 9 is unknown"):
        predictor.refine(*images, ids, np.zeros((2, 2), int))
    with pytest.raises(UserError, match="no stage 1"):
        predictor.coarse(*images)


def test_a_whole_scene_is_the_same_from_any_read(folder: Path) -> None:
    predictor = Predictor(folder)
    image = np.random.default_rng(1).integers(0, 255, (3, 90, 70), dtype=np.uint8)
    first, second = (predict_whole(predictor, ArrayScene(image), 90, 70) for _ in range(2))
    np.testing.assert_array_equal(first.refined, second.refined)
    assert first.refined.shape == first.coarse.shape == (90, 70)
    assert first.refined.max() < CLASSES
    holed = image.astype(np.float32)
    holed[:, :10] = np.nan
    assert (predict_whole(predictor, ArrayScene(holed), 90, 70).refined[:10] == IGNORE).all()


def test_the_sample_travels(folder: Path) -> None:
    sample = load_sample(folder)
    assert sample is not None and sample.expected.shape == (8, 8)


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        Predictor(tmp_path)
    for name, content in (("model.json", b"{}"), ("refiner/model.safetensors", b"cut off")):
        broken = tmp_path / name.replace("/", "-")
        _copy(folder, broken)
        (broken / name).write_bytes(content)
        with pytest.raises(UserError, match=name.split("/")[0]):
            Predictor(broken)
    other = tmp_path / "other"
    _copy(folder, other)
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
