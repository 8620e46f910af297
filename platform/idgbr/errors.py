"""The errors a person sees, and the exit codes they end a job with."""

from __future__ import annotations


class IdgbrError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 3


class UserError(IdgbrError):
    """Bad input: the message names the file or key, what was found, what was expected and the way out."""

    exit_code = 2


class Refused(IdgbrError):
    """A gate said no; nothing failed and nothing was changed."""

    exit_code = 1
