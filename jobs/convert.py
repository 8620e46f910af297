"""Convert what people have to what the platform reads: data sets and checkpoints.

python jobs/convert.py COMMAND --help
"""

from __future__ import annotations

from typing import NoReturn

from idgbr.subcommands import run_command
from jobs import conversions


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_command(conversions, __doc__)


if __name__ == "__main__":
    run()
