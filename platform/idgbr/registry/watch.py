"""Closes the runs of a process that died without a chance to do it itself (`kill -9`, out of memory).

A child of the process that owns the runs. Every run the owner opens is a line on the child's standard input. When the
input ends without a last line "done", the owner is gone: runs that still claim to run for it are closed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OWNER_TAG = "idgbr.owner"


def start(uri: str, owner: str) -> subprocess.Popen[str]:
    """Starts the watch in a session of its own, so that a signal to the owner's group does not reach it."""
    source_root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(source_root), uri, owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )


# Imports come after the wait: until it is needed the watch costs a bare interpreter.
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
    """Marks the runs KILLED that are still running and were not taken over by another process."""
    from idgbr.registry.store import connect

    client = connect(uri)
    for run_id in runs:
        run = client.get_run(run_id)
        if run.info.status == "RUNNING" and run.data.tags.get(OWNER_TAG) == owner:
            client.set_terminated(run_id, "KILLED")
