"""Opens the checkpoints of a run, in a folder or in the storage of a URI."""

from __future__ import annotations

from pathlib import Path

from idgbr.training.checkpoints import Checkpoints


def open_checkpoints(location: str, run: str, kept: int) -> Checkpoints:
    """Opens the checkpoints of one run.

    Args:
        location: a folder, or a URI such as `s3://BUCKET/PREFIX`.
        run: name of the run.
        kept: number of newest checkpoints to keep.

    Raises:
        UserError: there is no file system for the URI.
    """
    if "://" not in location:
        return Checkpoints(Path(location, run), kept)
    from idgbr.training.stored_checkpoints import StoredCheckpoints  # pyarrow's file systems only where they are used

    return StoredCheckpoints(location, run, kept)
