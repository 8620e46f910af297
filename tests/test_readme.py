"""What the README tells people to type is understood: flags, keys, configurations."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest

from idgbr.cli import JobFlags, parse_job

ROOT = Path(__file__).parents[1]


def commands() -> list[str]:
    """Lines of the README's code blocks that run a job or a part of the service."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.search(r"\bpython (-m serve_apps|jobs/)", line)]


def flags_of(words: list[str]) -> tuple[type[JobFlags], list[str]]:
    """The model of the flags, and the words it is to understand."""
    if words[0] == "-m":
        flags: type[JobFlags] = importlib.import_module(words[1]).Flags
        return flags, words[2:]
    job = runpy.run_path(words[0])
    for name in ("Flags", "TrainingFlags"):
        if name in job:
            return job[name], words[1:]
    package = {"benchmark": "benchmarks", "convert": "jobs.conversions"}[Path(words[0]).stem]
    return importlib.import_module(f"{package}.{words[1]}").Flags, words[2:]


def test_there_are_commands() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize("command", commands())
def test_a_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    line = command.rpartition("python ")[2].replace("mytown.yaml", "configs/demo.yaml")
    flags, words = flags_of(shlex.split(line, comments=True))
    if "--help" in words:
        with pytest.raises(SystemExit) as ended:
            parse_job(flags, words)
        assert not ended.value.code
    else:
        parse_job(flags, words)
