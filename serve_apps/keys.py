"""Makes an API key: prints it once, and adds its hash to a file.

    python -m serve_apps.keys --name mapping-team --file keys.txt

The file is named in `access.keys_file`; the key goes into requests as `Authorization: Bearer KEY`.
"""

from __future__ import annotations

import os
import re

from idgbr.cli import JobFlags, run_job
from idgbr.errors import UserError
from serve_apps.access import new_key


class Flags(JobFlags):
    """Flags of making a key."""

    name: str
    """Whose key it is: letters, digits, dots and dashes. Shows in logs."""
    file: str = "keys.txt"
    """File the hash is added to; made, readable by its owner alone, if there is none."""


def main(flags: Flags) -> dict[str, object]:
    """Makes the key."""
    if not re.fullmatch(r"[\w.-]+", flags.name):
        raise UserError(f"--name: found {flags.name!r}; expected letters, digits, dots and dashes")
    key, line = new_key(flags.name)
    with open(os.open(flags.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    print(f"key of {flags.name}, shown this once: {key}")
    return {"file": flags.file}


if __name__ == "__main__":
    run_job(main, Flags, __doc__)
