"""Which part of their names images and labels share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath

PLAIN = r"(.+)"


def pair_pattern(images: Sequence[str], labels: Sequence[str]) -> tuple[str, list[str]]:
    """A regular expression for `data.source.pair` that pairs images with labels by their stems.

    Names are compared as they are, then without what all images, or all labels, have at their end (_image, _mask), at
    their beginning, and at both.

    Returns:
        The expression that pairs most files, and the files that stay without a partner.
    """
    ours, theirs = [_stem(uri) for uri in images], [_stem(uri) for uri in labels]
    if len(ours) == len(theirs) == 1:
        shared = _prefix([ours[0], theirs[0]])
        return (f"^({re.escape(shared)})" if shared else "()"), []
    ends, begins = (_alternatives(ours, theirs, at_end) for at_end in (True, False))
    candidates = [PLAIN, f"^(.+?){ends}$", f"^{begins}(.+)$", f"^{begins}(.+?){ends}$"]
    scored = [(_lonely(images, labels, pattern), number, pattern) for number, pattern in enumerate(candidates)]
    lonely, _, pattern = min(scored, key=lambda item: (len(item[0]), item[1]))
    return pattern, lonely


def _alternatives(ours: Sequence[str], theirs: Sequence[str], at_end: bool) -> str:
    affixes = sorted({_common(ours, at_end), _common(theirs, at_end)} - {""}, key=len, reverse=True)
    return f"(?:{'|'.join(map(re.escape, affixes))})?" if affixes else ""


def _common(stems: Sequence[str], at_end: bool) -> str:
    """What all stems have at one end, up to a separator: digits of a number are no part of it."""
    if at_end:
        shared = _prefix([stem[::-1] for stem in stems])[::-1]
        found = re.search(r"[_\-. ].*$", shared)
    else:
        found = re.match(r".*[_\-. ]", _prefix(stems))
    return found.group() if found else ""


def _lonely(images: Sequence[str], labels: Sequence[str], pattern: str) -> list[str]:
    keys: list[dict[str, str]] = [{}, {}]
    lonely = []
    for side, uris in zip(keys, (images, labels), strict=True):
        for uri in uris:
            match = re.search(pattern, _stem(uri))
            if match is None or match.group(1) in side:
                lonely.append(uri)
            else:
                side[match.group(1)] = uri
    ours, theirs = keys
    return lonely + [ours[k] for k in sorted(ours.keys() - theirs)] + [theirs[k] for k in sorted(theirs.keys() - ours)]


def _stem(uri: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(uri).stem)


def _prefix(words: Sequence[str]) -> str:
    """What all words begin with."""
    columns = zip(*words, strict=False)
    return "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))
