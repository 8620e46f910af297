"""The media type of an answer, out of those the client accepts."""

from __future__ import annotations

from collections.abc import Sequence

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from serve_apps.problems import ProblemError

_ALIASES = {
    "image/geotiff": "image/tiff",
    "application/json": "application/geo+json",
    "multipart/form-data": "multipart/mixed",
}


def negotiated(accept: str, offered: Sequence[str]) -> str:
    """The offered type that a client prefers, the first one where it has no preference.

    Args:
        accept: The Accept header (RFC 9110): quality first, then specificity. Parameters but q are ignored.
        offered: Media types, the preferred one first.

    Raises:
        ProblemError: 406, it accepts none.
    """
    parsed = parse_accept_header(accept if accept.strip() else "*/*", MIMEAccept)
    plain = MIMEAccept([(parse_options_header(name)[0].lower(), quality) for name, quality in parsed])
    names = [*offered, *(alias for alias in _ALIASES if _ALIASES[alias] in offered)]
    best = plain.best_match(names)
    if best is None:
        listed = ", ".join(offered)
        raise ProblemError.of(406, "Not acceptable", f"Accept: {accept[:200]}; the service offers {listed}")
    return _ALIASES.get(best, best)
