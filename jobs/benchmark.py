"""Measure the platform against what it replaces: ratios taken in one run, on this machine.

python jobs/benchmark.py COMMAND --help
"""

from __future__ import annotations

import benchmarks
from idgbr.subcommands import run_command

if __name__ == "__main__":
    run_command(benchmarks, __doc__)
