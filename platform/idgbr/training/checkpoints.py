"""Checkpoints of a stage: written atomically, and verified by hash before they are used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from idgbr.errors import UserError
from idgbr.files import hash_file

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run, `step-N` each, in a folder that every node reaches."""

    def __init__(self, folder: str | Path, kept: int = 2) -> None:
        """Nothing is read or written yet.

        Args:
            folder: folder of the checkpoints.
            kept: number of newest checkpoints to keep; an older one is used if the newest is damaged.
        """
        self.folder, self._kept = Path(folder), kept
        self.where = str(folder)
        """Their folder or URI, for messages."""

    def save(self, step: int, files: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Write a checkpoint atomically, and remove all but the newest `kept`.

        Args:
            step: number of completed steps.
            files: objects to write with `torch.save`, by file name.
            metrics: JSON-serialisable figures, stored in the manifest together with the SHA-256 of each file.

        Raises:
            UserError: the disk is full, or the folder is not writable; earlier checkpoints are unchanged.
        """
        try:
            self._put(f"step-{step:08d}", files, metrics)
            for old in self._all()[self._kept :]:
                self._remove(old)
        except OSError as error:
            kept: list[str] = []
            with contextlib.suppress(OSError):
                kept = self._all()
            raise UserError(
                f"{self.where}: the checkpoint of step {step} cannot be written ({error.strerror or error}). "
                + (f"The last good one is {kept[0]}. " if kept else "")
                + "Free some space there or make it writable, and give the same command again: it resumes."
            ) from error

    def newest(self) -> Path | None:
        """The newest undamaged checkpoint, as a folder on this machine; None if there is none."""
        return next((folder for name in self._all() if not damage(folder := self.at(name))), None)

    def drop_damaged(self) -> list[str]:
        """Remove damaged checkpoints, so that `kept` counts intact ones only; returns the damage of each."""
        found = {name: damage(self.at(name)) for name in reversed(self._all())}
        for name, wrong in found.items():
            if wrong:
                self._remove(name)
        return [f"{name}: {wrong}" for name, wrong in found.items() if wrong]

    def at(self, name: str) -> Path:
        """The files of the checkpoint `name` in a folder on this machine."""
        return self.folder / name

    def clear(self) -> None:
        """Remove all of them."""
        for name in self._all():
            self._remove(name)

    def _put(self, name: str, files: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        target, part = self.folder / name, self.folder / f".{name}.part"
        try:
            if part.exists():
                shutil.rmtree(part)
            part.mkdir(parents=True)
            digests = {}
            for key, state in files.items():
                with (part / key).open("wb") as file:
                    digests[key] = write_state(file, state)
                    _to_disk(file)
            with (part / MANIFEST).open("wb") as file:
                file.write(manifest(metrics, digests))
                _to_disk(file)
            if target.exists():  # the run was resumed from an earlier step
                shutil.rmtree(target)
            part.rename(target)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name)

    def _all(self) -> list[str]:
        """Names of the checkpoints, the newest first."""
        return sorted((path.name for path in self.folder.glob("step-*")), reverse=True)


def damage(folder: Path) -> str:
    """The damage of a checkpoint's folder, as text; empty if it is intact."""
    try:
        digests = json.loads((folder / MANIFEST).read_text())["sha256"]
        for name, digest in digests.items():
            if hash_file(folder / name) != digest:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError) as error:
        return f"incomplete ({error})"
    return ""


def metrics_of(folder: Path) -> dict[str, Any]:
    """The figures a checkpoint was saved with."""
    return cast(dict[str, Any], json.loads((folder / MANIFEST).read_text())["metrics"])


def manifest(metrics: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
    """Content of the manifest, which marks a checkpoint as complete and has its metrics and hashes."""
    return json.dumps({"metrics": dict(metrics), "sha256": dict(digests)}).encode()


class Writable(Protocol):
    """Protocol of a writable binary file."""

    def write(self, data: bytes, /) -> Any: ...

    def flush(self) -> Any: ...


class _Hashed:
    """A file that hashes the bytes written to it, and keeps the original error, which torch would replace."""

    def __init__(self, file: Writable) -> None:
        self._file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def write_state(file: Writable, state: Any) -> str:
    """Writes `state` with `torch.save`, and returns the SHA-256 of the bytes."""
    hashed = _Hashed(file)
    try:
        torch.save(state, cast(Any, hashed))
    except RuntimeError as error:
        raise (hashed.error or error) from error
    return hashed.digest.hexdigest()


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
