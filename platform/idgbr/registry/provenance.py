"""Provenance of a run: package versions, commit, flattened configuration."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

PACKAGES = (
    "diffusers",
    "mlflow",
    "numpy",
    "rasterio",
    "ray",
    "segmentation-models-pytorch",
    "timm",
    "torch",
    "torchvision",
)

_LONGEST_PARAM = 6000


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that results depend on."""
    from idgbr import __version__

    found = {"python": platform.python_version(), "idgbr": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def commit() -> str:
    """Commit of the code, with `-dirty` appended if files differ from it; "unknown" outside a git repository."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return f"{head}-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def flatten(config: BaseModel) -> dict[str, str]:
    """All values of a configuration by dotted key; lists as JSON; truncated to the length that the store accepts."""
    flat: dict[str, str] = {}

    def visit(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, below in value.items():
                visit(below, f"{key}.{name}" if key else str(name))
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[key] = text[:_LONGEST_PARAM]

    visit(config.model_dump(mode="json"), "")
    return flat


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
