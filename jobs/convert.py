"""Convert what people have to what the platform reads: data sets and checkpoints.

python jobs/convert.py COMMAND --help
"""

from __future__ import annotations

import conversions
from idgbr.subcommands import run_command

if __name__ == "__main__":
    run_command(conversions, __doc__)
