"""Terminates the runs of a process that died and could not do so itself (`kill -9`, out of memory).

The watch is a child process of the process that owns the runs. The owner writes the id of every run that it opens as a
line to the standard input of the watch. If the input ends without a last line "done", the owner has died, and the watch
terminates those runs that still have the status RUNNING and belong to this owner.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OWNER_TAG = "idgbr.owner"


def start(uri: str, owner: str) -> subprocess.Popen[str]:
    """Starts the watch in a separate session, so that a signal to the owner's process group does not reach it."""
    source_root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(source_root), uri, owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )


# Imports come after the wait, so that a waiting watch needs only the memory of a bare interpreter.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
runs = [line.strip() for line in sys.stdin]
if runs and runs[-1] != "done":
    sys.path.append(sys.argv[1])
    from idgbr.registry.watch import close
    close(sys.argv[2], sys.argv[3], runs)
"""


def close(uri: str, owner: str, runs: list[str]) -> None:
    """Sets the status KILLED for runs that are still running and were not taken over by another process."""
    from idgbr.registry.store import connect

    client = connect(uri)
    for run_id in runs:
        run = client.get_run(run_id)
        if run.info.status == "RUNNING" and run.data.tags.get(OWNER_TAG) == owner:
            client.set_terminated(run_id, "KILLED")
