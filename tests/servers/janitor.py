"""Cleans up after a test session: when it is gone, the server in a folder is ended and the folder removed.

Usage: janitor.py PID START FOLDER; PID and START name the session's process.

Owns: knowing that the session is over, whatever ended it, and what is left of it.
Does not own: stopping a server in good time; who started it may have done so, and removed the folder.

Always holds: only a process that runs on the folder's data is signalled. Runs by path, with nothing of ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

_POLL_S = 0.2
_GRACE_S = 10.0


def main(pid: int, start: str, folder: Path) -> None:
    """Wait for the end of the session, or of the folder."""
    while _start_of(pid) == start and folder.exists():
        time.sleep(_POLL_S)
    while folder.exists():
        _end_server(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_server(folder: Path) -> None:
    data = folder / "data"
    try:
        first_line = (data / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0]
        command = Path(f"/proc/{int(first_line)}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if os.fsencode(data) not in command.split(b"\0"):
        return
    server = int(first_line)
    os.kill(server, signal.SIGQUIT)
    ends = time.monotonic() + _GRACE_S
    while _start_of(server) is not None and time.monotonic() < ends:
        time.sleep(0.02)
    if _start_of(server) is not None:
        os.kill(server, signal.SIGKILL)


def _start_of(pid: int) -> str | None:
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in {"Z", "X"} else after_name[19]


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # who started it goes on
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
