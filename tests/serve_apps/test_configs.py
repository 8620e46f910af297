"""The YAML files for `serve deploy`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from idgbr.errors import UserError
from serve_apps.refinement import build
from serve_apps.run import read_service
from serve_apps.settings import Args

CONFIGS = Path(__file__).parents[2] / "configs" / "serve"


@pytest.mark.parametrize("name", ["local.yaml", "cluster.yaml"])
def test_files_are_of_serve_s_schema_and_of_ours(name: str) -> None:
    http, args = read_service(str(CONFIGS / name))
    assert http.port == 8000
    assert args.refiner.max_replicas >= args.refiner.min_replicas >= 1


def test_serve_sees_what_the_builder_takes() -> None:
    """Of an annotation that is a string it makes nothing, and hands over a dictionary."""
    assert inspect.signature(build).parameters["args"].annotation is Args


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    text = (CONFIGS / "local.yaml").read_text().replace("threads: 2", "treads: 2")
    (tmp_path / "service.yaml").write_text(text)
    with pytest.raises(UserError, match=r"scenes\.treads: unknown key"):
        read_service(str(tmp_path / "service.yaml"))
