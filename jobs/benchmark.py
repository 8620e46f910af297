"""Measure the platform against what it replaces: ratios taken in one run, on this machine.

python jobs/benchmark.py COMMAND --help
"""

from __future__ import annotations

from typing import NoReturn

import benchmarks
from idgbr.subcommands import run_command


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_command(benchmarks, __doc__)


if __name__ == "__main__":
    run()
