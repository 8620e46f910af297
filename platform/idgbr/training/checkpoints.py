"""A stage's checkpoints: they appear whole or not at all, and are checked before they are trusted."""

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
            folder: where they are.
            kept: how many stay, the newest ones: of two, the older is for when the newest is found damaged.
        """
        self.folder, self._kept = Path(folder), kept
        self.where = str(folder)
        """Their folder or URI, for messages."""

    def save(self, step: int, files: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Keep a checkpoint under its final name at once, and of all of them the newest `kept`.

        Args:
            step: steps done.
            files: what `torch.save` is to write, by file name.
            metrics: JSON-able figures, kept in the manifest beside each file's SHA-256.

        Raises:
            UserError: the disk is full, or the folder cannot be written; earlier checkpoints are as they were.
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
        """The newest checkpoint whose files are what was written, as a folder on this machine; None without one."""
        return next((folder for name in self._all() if not damage(folder := self.at(name))), None)

    def drop_damaged(self) -> list[str]:
        """Remove damaged checkpoints, so that none counts among the kept; what was wrong with each."""
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
            if target.exists():  # the run went back behind it
                shutil.rmtree(target)
            part.rename(target)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name)

    def _all(self) -> list[str]:
        """Names, the newest first."""
        return sorted((path.name for path in self.folder.glob("step-*")), reverse=True)


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint's folder; empty when nothing is."""
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
    """What says that a checkpoint is whole, and what it holds."""
    return json.dumps({"metrics": dict(metrics), "sha256": dict(digests)}).encode()


class Writable(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> Any: ...

    def flush(self) -> Any: ...


class _Hashed:
    """A file that hashes what passes, and keeps the storage's own error: torch makes a RuntimeError of it."""

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
    """Writes what `torch.save` makes of `state`, and returns its SHA-256."""
    hashed = _Hashed(file)
    try:
        torch.save(state, cast(Any, hashed))
    except RuntimeError as error:
        raise (hashed.error or error) from error
    return hashed.digest.hexdigest()


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
