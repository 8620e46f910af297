"""The shape of the repository: what would break every process at once, and what the documentation says about it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_platform_is_a_source_root_and_no_package() -> None:
    assert (ROOT / "platform" / "idgbr").is_dir()
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_standard_library_wins_at_the_root() -> None:
    done = python("-c", "import platform, numpy, torch; assert platform.python_version(); import idgbr")
    assert done.returncode == 0, done.stderr


def test_who_holds_no_model_loads_no_torch() -> None:
    """Drivers, scene workers and the reconciler start in a moment, and leave 700 MB to the models."""
    drivers = "idgbr.distributed.mapping.refine, idgbr.distributed.flows.promotion"
    service = "serve_apps.scene_worker, serve_apps.gateway, serve_apps.reconciler"
    done = python("-c", f"import sys, {drivers}, {service}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def layout() -> list[str]:
    """Paths in the picture of the layout in CONTRIBUTING.md: indented names, each below the last less indented one."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"## Layout\n+```[a-z]*\n(.*?)```", text, re.DOTALL)
    assert picture, "CONTRIBUTING.md has no picture under ## Layout"
    paths: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in picture[1].splitlines():
        if not (match := re.match(r"( *)(\S+)", line)):
            continue
        indent = len(match[1])
        parents = [parent for parent in parents if parent[0] < indent]
        path = "".join(name for _, name in parents) + match[2]
        paths.append(path)
        if path.endswith("/"):
            parents.append((indent, match[2]))
    return paths


def test_the_picture_of_the_layout_is_true() -> None:
    paths = layout()
    assert len(paths) > 10
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_every_part_of_the_package_is_in_the_picture() -> None:
    pictured = {Path(path).name for path in layout() if path.startswith("platform/idgbr/")}
    parts = {path.parent.name for path in (ROOT / "platform" / "idgbr").glob("*/__init__.py")}
    assert not parts - pictured


def test_the_lock_holds_exact_versions_from_the_index() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.!]+", line)] == []


def test_the_lock_holds_what_the_project_asks_for() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    locked = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # DenseCRF needs a compiler: it is installed beside the lock, where there is one.
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, asked):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in requirements.lock"
        assert version in requirement.specifier, f"{requirement}, but requirements.lock has {version}"
