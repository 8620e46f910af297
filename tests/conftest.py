"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value)
    assert path.is_dir(), f"{variable}={value} is not a folder"
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real labelled imagery; the test is skipped where IDGBR_TEST_DATA is unset."""
    return _folder("IDGBR_TEST_DATA")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of reference vectors; the test is skipped where IDGBR_TEST_GOLDEN is unset."""
    return _folder("IDGBR_TEST_GOLDEN")
