"""Checkpoints, in a folder and in a bucket of a local server: whole or not there, checked, the newest kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
import torch

from idgbr.errors import UserError
from idgbr.training.checkpoint_storage import open_checkpoints
from idgbr.training.checkpoints import Checkpoints, damage, metrics_of


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


@pytest.fixture
def stored(bucket: Callable[[str, bytes], None]) -> Checkpoints:
    return open_checkpoints("s3://maps/runs", "toy", 2)


def objects() -> dict[str, bytes]:
    """What the bucket holds."""
    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket="maps").get("Contents", [])
    return {one["Key"]: client.get_object(Bucket="maps", Key=one["Key"])["Body"].read() for one in found}


def files(step: int) -> list[str]:
    return [f"runs/toy/step-{step:08d}/{name}" for name in ("manifest.json", "state.pt")]


def test_a_bucket_keeps_the_last_two(stored: Checkpoints) -> None:
    assert stored.newest() is None and stored.drop_damaged() == []
    keep(stored, 4, 8, 100)
    assert [key for key in objects() if not key.endswith("/")] == files(8) + files(100)
    for reader in (stored, open_checkpoints("s3://maps/runs", "toy", 2)):
        newest = reader.newest()
        assert newest is not None and newest.name == "step-00000100" and metrics_of(newest) == {"step": 100}
        assert torch.load(newest / "state.pt")["step"] == 100
    assert open_checkpoints("s3://maps/runs", "other", 2).newest() is None
    stored.clear()
    assert stored.newest() is None and not [key for key in objects() if not key.endswith("/")]


@pytest.mark.parametrize("spoil", ["bit", "gone", "no manifest"])
def test_a_damaged_one_in_a_bucket_gives_way(
    stored: Checkpoints, bucket: Callable[[str, bytes], None], spoil: str
) -> None:
    """Without a manifest, it is one whose writer was killed."""
    keep(stored, 4, 8)
    manifest, state = files(8)
    if spoil == "bit":
        data = bytearray(objects()[state])
        data[len(data) // 2] ^= 1
        bucket(state, bytes(data))
    else:
        boto3.client("s3").delete_object(Bucket="maps", Key=state if spoil == "gone" else manifest)
    again = open_checkpoints("s3://maps/runs", "toy", 2)
    found = again.newest()
    assert found is not None and found.name == "step-00000004"
    assert [line.partition(":")[0] for line in again.drop_damaged()] == ["step-00000008"]
    keep(again, 8)
    newest = again.newest()
    assert newest is not None and newest.name == "step-00000008"


def test_a_bucket_that_does_not_take_it_is_told(stored: Checkpoints, bucket: Callable[[str, bytes], None]) -> None:
    with pytest.raises(
        UserError, match=r"s3://nowhere/toy: the checkpoint of step 4 cannot be written .*NO_SUCH_BUCKET"
    ):
        keep(open_checkpoints("s3://nowhere", "toy", 2), 4)
    with pytest.raises(UserError, match="expected a folder, or a URI such as s3://"):
        open_checkpoints("gopher://maps", "toy", 2)
