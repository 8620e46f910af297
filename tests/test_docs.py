"""What the README and the pages say is true: commands are understood, links lead somewhere, keys and files exist."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import mlflow.cli
import pytest
import ray.scripts.scripts
import ray.serve.scripts
import yaml

from idgbr.cli import JobFlags, parse_job
from idgbr.config.keys import walk
from idgbr.config.load import load_experiment
from idgbr.config.tree import Experiment
from serve_apps.gateway import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "findings/README.md", *sorted(ROOT.glob("docs/**/*.md"))]
CLICK = {"ray": ray.scripts.scripts.cli, "serve": ray.serve.scripts.cli, "mlflow": mlflow.cli.cli}
"""Programs of others, whose own parsers read the words."""
SECTIONS = "|".join(Experiment.model_fields)


def blocks(language: str) -> list[tuple[Path, str]]:
    """Fenced blocks of a language in all pages; the empty language is that of commands."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = [(page, match) for page in PAGES for match in fence.findall(page.read_text(encoding="utf-8"))]
    return [(page, block) for page, (name, block) in found if name == language]


def inline() -> Iterator[tuple[Path, str]]:
    """Code inside of sentences."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        yield from ((page, " ".join(code.split())) for code in re.findall(r"`([^`]+)`", text))


def commands() -> list[str]:
    """Every command line of the pages: of blocks, but for the picture of the layout, and of sentences."""
    fenced = "\n".join(
        block for name in ("", "sh", "bash") for _, block in blocks(name) if not block.startswith("platform/")
    )
    lines = fenced.replace("\\\n", " ").splitlines()
    start = re.compile(r"(\S*python )?(jobs/\S+ .*--|-m )|(ray|serve|\S*mlflow) \w+ ")
    return list(dict.fromkeys([line for line in lines if line] + [code for _, code in inline() if start.match(code)]))


def manuals() -> list[str]:
    """Commands in the docstrings of the entry points and in the comments of the configurations."""
    files = [path for folder in ("jobs", "benchmarks", "serve_apps", "docs") for path in (ROOT / folder).rglob("*.py")]
    texts = [ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in files]
    texts += [path.read_text(encoding="utf-8").replace("\n#", "\n") for path in (ROOT / "configs").rglob("*.yaml")]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    start = re.compile(r"python (-m serve_apps\.|(jobs|docs)/)|jobs/\w+\.py (\w+ )?--")
    found = {re.sub(r"   +\(.*", "", line.strip()) for line in lines if start.match(line.strip())}
    return sorted(line for line in found if "COMMAND" not in line)


def flags_of(words: list[str]) -> tuple[type[JobFlags], list[str]]:
    """The model of the flags of a job or a part of the service, and the words that it reads."""
    if words[0] == "-m":
        flags: type[JobFlags] = importlib.import_module(words[1]).Flags
        return flags, words[2:]
    job = runpy.run_path(words[0])
    for name in ("Flags", "TrainingFlags"):
        if name in job:
            return job[name], words[1:]
    package = {"benchmark": "benchmarks", "convert": "jobs.conversions"}[Path(words[0]).stem]
    return importlib.import_module(f"{package}.{words[1]}").Flags, words[2:]


def check_job(words: list[str]) -> None:
    if words[:2] == ["-m", "venv"] or words[0].startswith("findings/NAME"):
        return
    flags, rest = flags_of([word.replace("mytown.yaml", "configs/demo.yaml") for word in words])
    if "--help" in rest:
        with pytest.raises(SystemExit) as ended:
            parse_job(flags, rest)
        assert not ended.value.code
    else:
        parse_job(flags, rest)


def check_click(program: str, words: list[str]) -> None:
    command: click.Command = CLICK[program]
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(click.Context(command), name)
        assert found, f"{program} has no command {name}"
        command = found
    command.make_context(command.name, words)


def check_curl(words: list[str]) -> None:
    url = next(urlsplit(word) for word in words if word.startswith("http://"))
    operations = app.openapi()["paths"][url.path]
    known = {parameter["name"] for operation in operations.values() for parameter in operation.get("parameters", [])}
    assert set(parse_qs(url.query)) <= known


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check(words: list[str]) -> None:
    """A command is understood by what it runs.

    Raises:
        AssertionError: It is not, or nothing here knows how to find out.
    """
    while "=" in words[0] and not words[0].startswith("-"):
        words = words[1:]
    program, rest = Path(words[0]).name, words[1:]
    if words[:3] == ["ray", "job", "submit"]:
        at = rest.index("--")
        check_click("ray", [*rest[:at], "python"])
        check(rest[at + 1 :])
    elif program in ("python", "python3.11"):
        check_job(rest)
    elif words[0].startswith("jobs/"):
        check_job(words)
    elif program in CLICK:
        check_click(program, rest)
    elif program == "curl":
        check_curl(rest)
    elif program == "make":
        assert set(rest) <= targets()
    elif program == "pytest":
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests/"))
    elif program.startswith("idgbr-"):
        assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    else:
        assert program in ("export", "pip", "pre-commit", "source"), f"no check for {program}"


def test_there_are_commands() -> None:
    assert len(commands()) > 50


@pytest.mark.parametrize("command", [*commands(), *manuals()])
def test_a_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(shlex.split(command, comments=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in targets if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_python_is_python_whose_imports_exist() -> None:
    for page, block in blocks("python"):
        for node in ast.walk(ast.parse(block, str(page))):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), f"{page}: {node.module}"


def test_experiments_load(tmp_path: Path) -> None:
    whole = [(page, block) for page, block in blocks("yaml") if "data" in yaml.safe_load(block)]
    assert whole
    for page, block in whole:
        (tmp_path / page.stem).with_suffix(".yaml").write_text(block, encoding="utf-8")
        load_experiment((tmp_path / page.stem).with_suffix(".yaml"))


def test_keys_exist() -> None:
    known = {key for key, _ in walk(Experiment)}
    mappings = ("gate.margins.", "gate.floors.", "gate.ceilings.", "gate.class_margins.")  # named by figure
    named = [
        (page.name, code.split(":")[0]) for page, code in inline() if re.match(rf"({SECTIONS})\.[a-z]\w*(\.|:|$)", code)
    ]
    assert len(named) > 15
    files = re.compile(r"\.(json|md|py|txt|yaml)$")
    assert [
        name
        for name in named
        if name[1] not in known and not name[1].startswith(mappings) and not files.search(name[1])
    ] == []


def test_files_exist() -> None:
    tops = "configs|docs|findings|jobs|platform|serve_apps|tests|benchmarks"
    paths = [(page.name, code) for page, code in inline() if re.fullmatch(rf"({tops})/[\w/.-]*", code)]
    assert len(paths) > 15
    assert [path for path in paths if "NAME" not in path[1] and not (ROOT / path[1]).exists()] == []
