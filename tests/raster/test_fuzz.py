"""Spoilt rasters: each ends as a result or as words that name the file; no crash, no hang, no gigabytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_files import mutations, write_whole

READER = Path(__file__).with_name("read_hostile.py")
READERS = 2
"""Processes that read at a time."""
CPU_SECONDS = 10
GROWTH = 768 * 2**20
"""Bytes reading one may take: the largest block that is accepted, its decoded copy, and what it came from."""


def read_all(paths: Iterable[Path]) -> dict[str, list[str]]:
    """How each use of each file ended, by path; a process that died, or grew, is one more end."""
    names = [str(path) for path in paths]
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        outputs = pool.map(_read, (names[first::READERS] for first in range(READERS)))
        for said in (json.loads(line) for lines in outputs for line in lines):
            ends = found.setdefault(said["path"], [])
            ends += said.get("ends", [])
            if said.get("status"):
                ends.append(f"the process ended with {said['status']}")
            if said.get("grown", 0) > GROWTH:
                ends.append(f"took {said['grown'] / 2**20:.0f} MB")
    assert set(names) == set(found)
    return found


def _read(names: Sequence[str]) -> list[str]:
    command = [sys.executable, str(READER), str(CPU_SECONDS)]
    given = "".join(f"{name}\n" for name in names)
    return subprocess.run(command, input=given, text=True, capture_output=True, check=True).stdout.splitlines()


def spoil(whole: Iterable[Path], folder: Path, thorough: bool) -> dict[Path, str]:
    """Writes every mutation; what was done, by path."""
    folder.mkdir()
    spoilt = {}
    for source in whole:
        content = source.read_bytes()
        for number, (what, changed) in enumerate(mutations(source.name, content, thorough)):
            path = folder / f"{source.stem}-{number}.tif"
            path.write_bytes(changed)
            spoilt[path] = f"{source.name}: {what}"
    return spoilt


def check(spoilt: dict[Path, str]) -> Counter[str]:
    """Reads all of them; how many ended how, after making sure that all ended well."""
    found = read_all(spoilt)
    bad = {what: wrong for path, what in spoilt.items()
           if (wrong := [end for end in found[str(path)] if end not in ("read", "refused")])}  # fmt: skip
    assert not bad, json.dumps(bad, indent=1)
    return Counter(found[str(path)][0] for path in spoilt)


def test_sound_files_of_every_kind_are_read(tmp_path: Path) -> None:
    found = read_all(write_whole(tmp_path))
    refused = {Path(path).stem for path, ends in found.items() if ends[0] != "read"}
    assert refused == {"complex", "sparse"}, found


def test_spoilt_files_end_well(tmp_path: Path) -> None:
    spoilt = spoil(write_whole(tmp_path), tmp_path / "spoilt", thorough=False)
    ends = check(spoilt)
    assert len(spoilt) > 200
    assert min(ends["read"], ends["refused"]) > len(spoilt) // 10  # neither all dead nor all sound


@pytest.mark.soak
def test_many_spoilt_files_end_well(tmp_path: Path) -> None:
    spoilt = spoil(write_whole(tmp_path), tmp_path / "spoilt", thorough=True)
    assert len(spoilt) > 1000
    check(spoilt)


@pytest.mark.slow
def test_spoilt_real_files_end_well(tmp_path: Path, data_dir: Path) -> None:
    whole = [path for path in sorted(data_dir.glob("geotiff_misc/*/*.tif")) if path.stat().st_size < 2**20]
    assert len(whole) > 20
    check(spoil(whole, tmp_path / "spoilt", thorough=False))
