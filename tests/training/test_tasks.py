"""Losses and tasks: ignored pixels never count, and what a sample draws is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idgbr import IGNORE
from idgbr.boundaries import near_boundary
from idgbr.config.data import ClassSpec, DataConfig, FolderSource
from idgbr.config.models import CoarseConfig, RefinerConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import Normalisation
from idgbr.errors import UserError
from idgbr.training.coarse import CoarseTask
from idgbr.training.losses import cross_entropy_sum, dice, dice_sum
from idgbr.training.refiner import MEASURED_REACH, RefinerTask, at_odds

CLASSES, SIZE = 3, 32
PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)


def experiment(prediction: str = "label") -> Experiment:
    data = DataConfig(
        name="toy",
        source=FolderSource(images=["none"]),
        classes=[ClassSpec(name=f"class {i}", colour="#000000") for i in range(CLASSES)],
    )
    refiner = RefinerConfig(
        window=SIZE,
        channels=[16, 32],
        guidance_width=16,
        guidance_heads=2,
        attention_head_dim=8,
        condition_depth=1,
        image_encoder_weights="none",
        image_encoder_levels=[0],
        prediction=prediction,
        boundary_weight=1.0,
        condition_dropout=0.3,
    )
    coarse = CoarseConfig(encoder="tu-mobilenetv3_small_050", weights="none")
    return Experiment(data=data, refiner=refiner, coarse=coarse)


def batch(count: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, CLASSES, (count, SIZE, SIZE), generator=generator)
    label[:, :8] = IGNORE
    probabilities = torch.rand(count, CLASSES, SIZE, SIZE, generator=generator).softmax(1)
    return {
        "image": torch.randn(count, 3, SIZE, SIZE, generator=generator),
        "valid": torch.ones(count, SIZE, SIZE, dtype=torch.bool),
        "label": label,
        "coarse": torch.cat([probabilities.argmax(1, keepdim=True).float(), probabilities], 1),
        "seed": torch.arange(count) + 17,
        "row": torch.zeros(count, dtype=torch.long),
        "col": torch.zeros(count, dtype=torch.long),
    }


def tasks() -> list[CoarseTask | RefinerTask]:
    kinds = ("label", "epsilon", "v", "sample")
    return [CoarseTask(experiment(), 3, PLAIN), *(RefinerTask(experiment(k), 3, PLAIN) for k in kinds)]


def test_a_batch_without_a_label_counts_for_nothing() -> None:
    empty = batch(2)
    empty["label"] = torch.full_like(empty["label"], IGNORE)
    for task in tasks():
        loss, weight = task.forward(empty)
        assert float(loss) == 0.0 and float(weight) == 0.0
        loss.backward()
        gradients = [p.grad for p in task.model.parameters() if p.grad is not None]
        assert gradients and all(bool(g.isfinite().all()) and not g.any() for g in gradients)


def test_what_lies_under_ignored_pixels_changes_nothing() -> None:
    logits = torch.randn(2, CLASSES, 8, 8)
    label = torch.randint(0, CLASSES, (2, 8, 8))
    label[:, 2:4] = IGNORE
    other = logits.clone()
    other[:, :, 2:4] += 5.0
    assert torch.equal(cross_entropy_sum(logits, label)[0], cross_entropy_sum(other, label)[0])
    torch.testing.assert_close(dice(logits, label), dice(other, label))


def test_dice_is_nothing_for_the_truth_and_one_for_its_opposite() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    sure = torch.stack([torch.full((1, 4, 4), 50.0), torch.full((1, 4, 4), -50.0)], 1)
    assert float(dice(sure, label)) == pytest.approx(0.0, abs=1e-6)
    assert float(dice(-sure, label)) == pytest.approx(1.0, abs=1e-6)


def test_dice_of_windows_adds_up_however_they_are_shared() -> None:
    """Two workers' halves give what one worker's batch gives; an unlabelled window adds nothing."""
    logits, label = torch.randn(3, CLASSES, 8, 8), torch.randint(0, CLASSES, (3, 8, 8))
    label[0, 3:] = IGNORE
    together = dice_sum(logits, label)
    torch.testing.assert_close(together, dice_sum(logits[:1], label[:1]) + dice_sum(logits[1:], label[1:]))
    unlabelled = torch.full_like(label[:1], IGNORE)
    torch.testing.assert_close(together, dice_sum(torch.cat([logits, logits[:1]]), torch.cat([label, unlabelled])))


def test_nodata_has_no_boundary() -> None:
    label = torch.zeros(1, 9, 9, dtype=torch.long)
    label[:, :, 5:] = IGNORE
    assert not near_boundary(label, 2).any()
    label[:, :, 5:] = 1
    assert near_boundary(label, 2)[0, 0].tolist() == [False, False, False, True, True, True, True, False, False]


@pytest.mark.parametrize("prediction", ["label", "epsilon", "v", "sample"])
def test_a_sample_s_loss_does_not_depend_on_its_batch(prediction: str) -> None:
    task = RefinerTask(experiment(prediction), 3, PLAIN)
    everything = batch()
    whole, weight = task.forward(everything)
    halves = [task.forward({k: v[s] for k, v in everything.items()}) for s in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(whole, sum(loss for loss, _ in halves), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(weight, sum(w for _, w in halves))


def test_the_refiner_learns_from_coarse_maps_at_other_odds() -> None:
    config = experiment()
    odds = config.model_copy(
        update={
            "refiner": config.refiner.model_copy(update={"coarse_input": "probabilities", "coarse_odds": [1, 0.2, 3]})
        }
    )
    plain = odds.model_copy(update={"refiner": odds.refiner.model_copy(update={"coarse_odds": []})})
    given = batch()
    given["coarse"][:, :, 8:12] = 0
    shifted = {**given, "coarse": given["coarse"].clone()}
    shifted["coarse"][:, 1:] = at_odds(given["coarse"][:, 1:], [1, 0.2, 3])
    before, after = given["coarse"][:, 1:], shifted["coarse"][:, 1:]
    torch.testing.assert_close(after.sum(1), before.sum(1))
    torch.testing.assert_close(after[:, 1] * before[:, 0], 0.2 * after[:, 0] * before[:, 1])
    torch.testing.assert_close(after[:, 2] * before[:, 0], 3 * after[:, 0] * before[:, 2])
    task = RefinerTask(odds, 3, PLAIN)
    other = RefinerTask(plain, 3, PLAIN)
    other.load_state_dict(task.state_dict())
    torch.testing.assert_close(task.forward(given)[0], other.forward(shifted)[0])
    assert task.forward(given)[0] != other.forward(given)[0]
    # What it is measured on is the final backbone's, and stays as it is.
    task.model.eval()
    other.model.eval()
    assert torch.equal(task.measure(given), other.measure(given))


@pytest.mark.parametrize("index", range(5))
def test_tasks_learn(index: int) -> None:
    """Twenty steps on one batch lower its loss, and the measurement counts the pixels it is about once."""
    torch.manual_seed(0)
    task, data = tasks()[index], batch()
    optimiser = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(20):
        loss, weight = task.forward(data)
        losses.append(float((loss / weight).detach()))
        optimiser.zero_grad()
        (loss / weight).backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    task.model.eval()
    counted = data["label"] != IGNORE
    if isinstance(task, RefinerTask):
        counted &= near_boundary(data["label"], MEASURED_REACH)
    assert int(task.measure(data).sum()) == int(counted.sum()) > 0


def test_starting_from_weights_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="none of its tensors fits"):
        RefinerTask(experiment(), 3, PLAIN, str(tmp_path / "weights.pt"))


def test_starting_from_a_model_takes_its_weights(tmp_path: Path) -> None:
    first = RefinerTask(experiment(), 3, PLAIN)
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second = RefinerTask(experiment(), 3, PLAIN, str(tmp_path / "weights.pt"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
