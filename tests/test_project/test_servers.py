"""Servers of the tests: a session that is killed leaves neither its server nor its folder behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.postgres import WHAT_IS_MISSING, find_binaries, started_at

ROOT = Path(__file__).resolve().parents[2]
_SESSION = """
import sys
from tests.servers.postgres import shared_server
server = shared_server()
print(server.socket.parent, flush=True)
sys.stdin.readline()
"""


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["killed", "over"])
def test_when_a_session_is_over_its_server_and_its_folder_go(end: str) -> None:
    if find_binaries() is None:
        pytest.skip(WHAT_IS_MISSING)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with subprocess.Popen(
        [sys.executable, "-c", _SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        text=True,
    ) as session:
        assert session.stdout is not None
        folder = Path(session.stdout.readline().strip())
        server = int((folder / "data" / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0])
        assert started_at(server) is not None
        if end == "killed":
            session.send_signal(signal.SIGKILL)
        else:
            session.communicate("\n")
    ends = time.monotonic() + 30
    while (folder.exists() or started_at(server) is not None) and time.monotonic() < ends:
        time.sleep(0.05)  # another process does it
    assert not folder.exists()
    assert started_at(server) is None


def test_what_the_tests_need_is_found_or_the_reader_is_told() -> None:
    command = [sys.executable, "-m", "tests.servers.install"]
    if find_binaries() is None:
        pytest.skip(WHAT_IS_MISSING)
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("PostgreSQL is here: ")
