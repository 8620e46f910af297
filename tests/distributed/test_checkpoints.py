"""Checkpoints: whole or not there, checked, the last two kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idgbr.distributed.checkpoints import Checkpoints, damage, metrics_of
from idgbr.errors import UserError


def keep(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {"state.pt": {"step": step, "weights": torch.arange(1000.0)}}, {"step": step})


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is None
    keep(checkpoints, 4, 8, 100)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000008", "step-00000100"]
    newest = checkpoints.newest()
    assert newest is not None and metrics_of(newest) == {"step": 100}
    assert torch.load(newest / "state.pt")["step"] == 100


@pytest.mark.parametrize("spoil", ["bit", "short", "gone", "manifest"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, spoil: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    keep(checkpoints, 4, 8)
    state = tmp_path / "step-00000008" / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    if spoil == "bit":
        state.write_bytes(data)
    elif spoil == "short":
        state.write_bytes(data[:100])
    elif spoil == "gone":
        state.unlink()
    else:
        (state.parent / "manifest.json").write_text("{")
    found = checkpoints.newest()
    assert found is not None and found.name == "step-00000004"
    assert [line.partition(":")[0] for line in checkpoints.drop_damaged()] == ["step-00000008"]
    keep(checkpoints, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000008"]


def test_a_folder_that_cannot_be_written_is_told_and_costs_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    keep(checkpoints, 4)
    good = checkpoints.newest()
    assert good is not None
    before = (good / "state.pt").read_bytes()
    checkpoints.folder.rename(tmp_path / "aside")
    checkpoints.folder.write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        keep(checkpoints, 8)
    checkpoints.folder.unlink()
    (tmp_path / "aside").rename(checkpoints.folder)
    assert not damage(good) and (good / "state.pt").read_bytes() == before
