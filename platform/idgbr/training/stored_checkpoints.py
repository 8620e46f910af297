"""Checkpoints in a bucket, or in any other storage that pyarrow knows."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType

from idgbr.errors import UserError
from idgbr.training.checkpoints import MANIFEST, Checkpoints, manifest, write_state


class StoredCheckpoints(Checkpoints):
    """The checkpoints of one run behind a URI.

    A bucket has no atomic rename: the manifest is written last, and a checkpoint is complete only with its manifest. To
    read a checkpoint, its files are copied to this machine, one checkpoint at a time.
    """

    def __init__(self, uri: str, run: str, kept: int) -> None:
        try:
            self._storage, root = FileSystem.from_uri(uri)
        except (ValueError, OSError) as error:  # pyarrow's own are subclasses
            raise UserError(
                f"resources.checkpoints: expected a folder, or a URI such as s3://BUCKET/PREFIX ({error})"
            ) from error
        self._copies = tempfile.TemporaryDirectory(prefix="idgbr-checkpoint-")
        super().__init__(self._copies.name, kept)
        self._root = f"{root.rstrip('/')}/{run}"
        self.where = f"{self._storage.type_name}://{self._root}"  # without the credentials that a URI may contain

    def at(self, name: str) -> Path:
        copy = self.folder / name
        if copy.exists():
            return copy
        self._forget_copies()
        part = self.folder / f".{name}.part"
        part.mkdir()
        with self._readable():
            for found in self._storage.get_file_info(FileSelector(f"{self._root}/{name}")):
                if found.type == FileType.File:
                    with (
                        self._storage.open_input_stream(found.path) as source,
                        (part / found.base_name).open("wb") as out,
                    ):
                        shutil.copyfileobj(source, out, 2**20)
        part.rename(copy)
        return copy

    def _put(self, name: str, files: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        self._forget_copies()
        self._remove(name)  # exists if the run was resumed from an earlier step
        target = f"{self._root}/{name}"
        self._storage.create_dir(target, recursive=True)
        digests = {}
        for key, state in files.items():
            with self._storage.open_output_stream(f"{target}/{key}") as out:
                digests[key] = write_state(out, state)
        with self._storage.open_output_stream(f"{target}/{MANIFEST}") as out:
            out.write(manifest(metrics, digests))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._storage.delete_file(f"{self._root}/{name}/{MANIFEST}")
        with contextlib.suppress(FileNotFoundError):
            self._storage.delete_dir(f"{self._root}/{name}")

    def _all(self) -> list[str]:
        with self._readable():
            found = self._storage.get_file_info(FileSelector(self._root, allow_not_found=True))
        return sorted((info.base_name for info in found if info.base_name.startswith("step-")), reverse=True)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Raise a UserError if the storage does not respond, so that this is not reported as a damaged checkpoint."""
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.where}: the checkpoints there cannot be read ({error})") from error

    def _forget_copies(self) -> None:
        for copy in self.folder.iterdir():
            shutil.rmtree(copy)
