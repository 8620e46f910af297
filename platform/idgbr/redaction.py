"""Secrets out of what is kept or printed: addresses with passwords, signed links, values of secret variables."""

from __future__ import annotations

import os
import re

MASK = "***"
_SHORTEST = 8
"""Characters of a variable's value from which it counts as a secret; `true` or a port would mask half of a log."""

_SECRET_WORD = r"(?:password|passwd|secret|token|api_?key|access_?key|signature|credential|sig)"
_SECRET_VARIABLE = re.compile(rf"(?:^|_){_SECRET_WORD}s?(?:_|$)", re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<before>[\w+.-]+://[^\s/@:]*:)[^\s/@]+(?=@)")
_PARAMETER = re.compile(rf"(?P<before>[?&](?:[\w.-]*[_.-])?{_SECRET_WORD}(?:[_.-][\w.-]*)?=)[^&\s\"']+", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with secrets masked.

    Masked are the password in an address (scheme://user:password@host), parameters of a link whose name says they are
    secret (?token=..., X-Amz-Signature=...), and the value of every environment variable whose name says so
    (AWS_SECRET_ACCESS_KEY, RAY_AUTH_TOKEN, POSTGRES_PASSWORD), wherever a configuration took it from there. Names of
    files that hold secrets (..._PATH, ..._FILE) are none.
    """
    for value in sorted(_secret_values(), key=len, reverse=True):
        text = text.replace(value, MASK)
    text = _ADDRESS.sub(rf"\g<before>{MASK}", text)
    return _PARAMETER.sub(rf"\g<before>{MASK}", text)


def _secret_values() -> set[str]:
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST
        and _SECRET_VARIABLE.search(name)
        and not name.upper().endswith(("_PATH", "_FILE", "_URI", "_URL", "_MODE"))
    }
