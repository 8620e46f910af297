"""Which of the types a client accepts it gets."""

from __future__ import annotations

from collections.abc import Sequence

from serve_apps.messages import ProblemError

_ALIASES = {
    "image/geotiff": "image/tiff",
    "application/json": "application/geo+json",
    "multipart/form-data": "multipart/mixed",
}


def negotiated(accept: str, offered: Sequence[str]) -> str:
    """The offered type a client likes best, the first one where it does not say.

    Args:
        accept: The Accept header (RFC 9110); parameters but q are not looked at.
        offered: Types there are, the preferred one first.

    Raises:
        ProblemError: 406, it likes none.
    """
    wishes: list[tuple[float, int, str]] = []
    for place, item in enumerate(accept.split(",")):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if name and quality > 0:
            wishes.append((-quality, place, _ALIASES.get(name, name)))
    for _, _, wish in sorted(wishes or [(-1.0, 0, "*/*")]):
        for media in offered:
            if wish in ("*/*", media) or (wish.endswith("/*") and media.startswith(wish[:-1])):
                return media
    raise ProblemError.of(406, "Type not offered", f"Accept: {accept[:200]}; there is {', '.join(offered)}")
