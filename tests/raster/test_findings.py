"""Findings read as one sentence that names file, finding, advice and key."""

from __future__ import annotations

import pytest

from idgbr.raster.findings import Finding


@pytest.mark.parametrize(
    ("key", "advice", "expected"),
    [
        ("data.alpha", "say what it is", "a.tif: band 4 is odd; say what it is (`data.alpha`)"),
        ("", "leave it", "a.tif: band 4 is odd; leave it"),
        ("data.alpha", "", "a.tif: band 4 is odd (`data.alpha`)"),
        ("", "", "a.tif: band 4 is odd"),
    ],
)
def test_message_has_only_the_parts_that_are_set(key: str, advice: str, expected: str) -> None:
    assert Finding("a.tif", "band 4 is odd", key, advice, "warning").message() == expected
