"""Where a run's checkpoints are kept: in a folder, or in storage behind a URI."""

from __future__ import annotations

from pathlib import Path

from idgbr.training.checkpoints import Checkpoints


def open_checkpoints(location: str, run: str, kept: int) -> Checkpoints:
    """Opens the checkpoints of one run.

    Args:
        location: a folder, or a URI such as `s3://BUCKET/PREFIX`.
        run: name of the run.
        kept: how many checkpoints stay, the newest ones.

    Raises:
        UserError: no file system for the URI.
    """
    if "://" not in location:
        return Checkpoints(Path(location, run), kept)
    from idgbr.training.stored_checkpoints import StoredCheckpoints  # pyarrow's file systems only where they are used

    return StoredCheckpoints(location, run, kept)
