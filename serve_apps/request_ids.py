"""Ids of requests: the caller's own where it is plausible, so that the caller's log and the service's meet."""

from __future__ import annotations

import re
import uuid

_PLAUSIBLE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def plausible_id(sent: str) -> str:
    """The id a caller sent, or a new one where it sent none or one that does not belong into a log."""
    return sent if _PLAUSIBLE.fullmatch(sent) else uuid.uuid4().hex
