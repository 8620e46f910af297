"""A stage's checkpoints: folders that appear whole or not at all, and are checked before they are trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from idgbr.errors import UserError

MANIFEST = "manifest.json"
KEPT = 2
"""The newest one, and the one before it for when the newest is found damaged."""


class Checkpoints:
    """The checkpoints of one run, `step-N` each, in a folder that every node reaches."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def save(self, step: int, files: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Keep a checkpoint under its final name at once, and only the last two of all.

        Args:
            step: steps done.
            files: what `torch.save` is to write, by file name.
            metrics: JSON-able figures, kept in the manifest beside each file's SHA-256.

        Raises:
            UserError: the disk is full, or the folder cannot be written; earlier checkpoints are as they were.
        """
        target = self.folder / f"step-{step:08d}"
        part = self.folder / f".{target.name}.part"
        try:
            if part.exists():
                shutil.rmtree(part)
            part.mkdir(parents=True)
            digests = {name: _write(part / name, state) for name, state in files.items()}
            with (part / MANIFEST).open("w") as file:
                json.dump({"metrics": dict(metrics), "sha256": digests}, file)
                _to_disk(file)
            if target.exists():  # the run went back behind it
                shutil.rmtree(target)
            part.rename(target)
            for old in self._all()[KEPT:]:
                shutil.rmtree(old)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            kept = self._all()
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} cannot be written ({error.strerror}). "
                + (f"The last good one is {kept[0].name}. " if kept else "")
                + "Free some space there or make it writable, and give the same command again: it resumes."
            ) from error

    def newest(self) -> Path | None:
        """The newest checkpoint whose files are what was written; None without one."""
        return next((folder for folder in self._all() if not damage(folder)), None)

    def drop_damaged(self) -> list[str]:
        """Remove damaged checkpoints, so that none counts among the kept; what was wrong with each."""
        found = {folder: damage(folder) for folder in self._all()}
        for folder, wrong in found.items():
            if wrong:
                shutil.rmtree(folder)
        return [f"{folder.name}: {wrong}" for folder, wrong in found.items() if wrong]

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint's folder; empty when nothing is."""
    try:
        digests = json.loads((folder / MANIFEST).read_text())["sha256"]
        for name, digest in digests.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} is not what was written"
    except (OSError, ValueError, KeyError) as error:
        return f"incomplete ({error})"
    return ""


def metrics_of(folder: Path) -> dict[str, Any]:
    """The figures a checkpoint was saved with."""
    return cast(dict[str, Any], json.loads((folder / MANIFEST).read_text())["metrics"])


class _Hashed:
    """A file that hashes what passes, and keeps the disk's own error: torch makes a RuntimeError of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(path: Path, state: Any) -> str:
    """Writes a torch file and returns its SHA-256."""
    with path.open("wb") as file:
        hashed = _Hashed(file)
        try:
            torch.save(state, cast(Any, hashed))
        except RuntimeError as error:
            raise (hashed.error or error) from error
        _to_disk(file)
    return hashed.digest.hexdigest()


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
