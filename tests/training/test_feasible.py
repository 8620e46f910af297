"""What would fail after stage 1 is refused before it, with the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from idgbr.config.load import load_experiment
from idgbr.config.recipe import RECIPE
from idgbr.errors import UserError
from idgbr.training.feasible import refuse_infeasible

ROOT = Path(__file__).parents[2]
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"refiner.channels": [40, 64]}, ["refiner.channels", "40", "multiples of 16"]),
    ({"refiner.guidance_heads": 3}, ["refiner.guidance_heads", "divisor", "32"]),
    ({"refiner.window": 130}, ["refiner.window", "multiple of 16", "128"]),
    ({"coarse.decoder": "PAN", "coarse.window": 32}, ["coarse.window 32", "PAN"]),
    ({"coarse.decoder": "DeepLabV3Plus", "training.coarse.batch": 2}, ["DeepLabV3Plus", "training.coarse.batch"]),
    ({"refiner.image_encoder_levels": [0, 9]}, ["refiner.image_encoder_levels", "[0, 9]"]),
    ({"refiner.image_encoder_weights": "nowhere.pth"}, ["refiner.image_encoder_weights", "nowhere.pth"]),
    ({"refiner.condition_encoder": "unet"}, ["refiner: its settings make no network"]),
    ({"training.refiner.precision": "fp16"}, ["training.refiner.precision", "fp16"]),
    ({"training.refiner.alignment.teacher": "vit_none"}, ["training.refiner.alignment.teacher", "vit_none"]),
]


@pytest.mark.parametrize(("change", "words"), CASES)
def test_an_experiment_that_cannot_end_is_refused(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        refuse_infeasible(load_experiment(ROOT / "configs/demo.yaml", change))
    for word in words:
        assert word in str(refused.value)


def test_a_file_with_only_data_is_trained_by_the_measured_recipe(tmp_path: Path) -> None:
    christchurch = load_experiment(ROOT / "configs/christchurch.yaml")
    tree = yaml.safe_load((ROOT / "configs/christchurch.yaml").read_text())
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({"data": tree["data"]}))
    plain = load_experiment(tmp_path / "plain.yaml", {"training.coarse.steps": 20})
    assert plain.training.coarse.steps == 20
    plain = load_experiment(tmp_path / "plain.yaml")
    for section in RECIPE:
        ours = getattr(plain, section).model_dump()
        theirs = getattr(christchurch, section).model_dump()
        if section == "training":  # there it is in data.augmentation, which is for both stages
            ours["refiner"].pop("augmentation"), theirs["refiner"].pop("augmentation")
        assert ours == theirs
    augmentation = plain.training.refiner.augmentation
    assert augmentation is not None and augmentation == christchurch.data.augmentation
    refuse_infeasible(plain)
