"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from idgbr.files import atomic_path, hash_file, hash_folder, hash_text, write_atomically


def test_a_file_appears_under_its_name_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "map.tif"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".tif"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_atomically(target, "before")

    def fail_halfway() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail_halfway()
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


def test_hashes_follow_names_and_contents(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"one")
    before = hash_folder(tmp_path)
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"one").hexdigest() == hash_text("one", 64)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = hash_folder(tmp_path)
    write_atomically(tmp_path / "b", b"two")
    assert len({before, renamed, hash_folder(tmp_path)}) == 3
