"""The YAML files for `serve deploy`."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgbr.errors import UserError
from serve_apps.run import read_service

CONFIGS = Path(__file__).parents[2] / "configs" / "serve"


@pytest.mark.parametrize("name", ["local.yaml", "cluster.yaml"])
def test_files_are_of_serve_s_schema_and_of_ours(name: str) -> None:
    http, args = read_service(str(CONFIGS / name))
    assert http.port == 8000
    assert args.refiner.max_replicas >= args.refiner.min_replicas >= 1


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    text = (CONFIGS / "local.yaml").read_text().replace("threads: 2", "treads: 2")
    (tmp_path / "service.yaml").write_text(text)
    with pytest.raises(UserError, match=r"scenes\.treads: unknown key"):
        read_service(str(tmp_path / "service.yaml"))
