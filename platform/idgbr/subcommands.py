"""Jobs of several commands: `python jobs/NAME.py COMMAND --flag VALUE`, one file per command in a package.

A command's file has a docstring, a model `Flags` and a function `main`, as a job of its own would; it is found by its
name, so that adding a command is adding a file::

    import benchmarks
    from idgbr.subcommands import run_command

    if __name__ == "__main__":
        run_command(benchmarks, __doc__)

Only the file of the command that was named is imported. Files whose name begins with an underscore are no commands.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from idgbr.cli import JobFlags, run_job
from idgbr.errors import UserError


def run_command(
    package: ModuleType, description: str | None = None, arguments: Sequence[str] | None = None
) -> NoReturn:
    """Runs the command that the first word names, and ends the process as `idgbr.cli.run_job` does.

    Args:
        package: The package whose modules are the commands.
        description: Shown by --help, before the list of commands.
        arguments: Words after the program's name (default: those of this process).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    files = {info.name: info for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")}
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        _help(package, sorted(files), description)
        sys.exit(0)
    if name not in files:
        run_job(_refusal(name, sorted(files)), JobFlags, description, [])
    command = importlib.import_module(f"{package.__name__}.{name}")
    run_job(command.main, command.Flags, command.__doc__, words[1:])


def _help(package: ModuleType, names: Sequence[str], description: str | None) -> None:
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s COMMAND [--flag VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands (COMMAND --help lists the flags of one)", metavar="COMMAND")
    for name in names:
        # Read, not imported: help of ten commands should not load what ten commands need.
        source = Path(package.__path__[0], f"{name}.py").read_text(encoding="utf-8")
        commands.add_parser(name, help=(ast.get_docstring(ast.parse(source)) or "").partition("\n")[0])
    parser.print_help()


def _refusal(name: str, names: Sequence[str]) -> Any:
    def refuse(flags: JobFlags) -> Mapping[str, object]:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"the nearest is {close[0]}" if close else f"expected one of {', '.join(names)}"
        raise UserError(f"command line: found {name!r} where a command is expected; {hint}")

    return refuse
