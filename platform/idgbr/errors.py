"""The errors a person sees, and the exit codes they end a job with."""

from __future__ import annotations

from collections.abc import Mapping


class IdgbrError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 3


class UserError(IdgbrError):
    """Bad input: the message names the file or key, what was found, what was expected and the way out."""

    exit_code = 2


class Refused(IdgbrError):
    """A quality gate refused; nothing failed and nothing was changed.

    Attributes:
        outputs: what there is to look at all the same, for a job's last line.
    """

    exit_code = 1

    def __init__(self, message: str, outputs: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.outputs = dict(outputs or {})
