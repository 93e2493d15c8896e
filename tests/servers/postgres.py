"""A PostgreSQL server for tests: found on the machine, started in a temporary folder, never left over.

Owns: `PostgresServer`, `shared_server` (one per test session, whatever the number of workers), databases.
Does not own: installing (tests.servers.install), cleaning up after a session (tests.servers.janitor).

Always holds: it runs as an unprivileged user, listens on a socket in its own folder only, and wants a
password; when the session ends, however it ends, server and folder go.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

USER: Final = "flow"
PORT: Final = 5432
"""Part of the socket's name; no port is opened."""
WHAT_IS_MISSING: Final = (
    "there is no PostgreSQL on this machine, so nothing of the PostgreSQL store was proven; `make servers`"
    " installs it where root and apt-get are, else put initdb, postgres, pg_ctl and psql on PATH"
)
_START_S: Final = 60.0
_POLL_S: Final = 0.02


class NoPostgresError(RuntimeError):
    """There is none here, or none may be started."""


def find_binaries() -> Path | None:
    """The folder that holds initdb, postgres, pg_ctl and psql; the newest version where there are several."""
    found = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    names = ("initdb", "postgres", "pg_ctl", "psql")
    return next((each for each in (*debian, *found) if all((each / name).exists() for name in names)), None)


def session_pid() -> int:
    """The process that lives as long as the test session: xdist's controller, or this one."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def started_at(pid: int) -> str | None:
    """When a process was started, so that a pid that is used again is told apart; None: it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in {"Z", "X"} else after_name[19]


class PostgresServer:
    """A server in `folder`, made by `make_server`."""

    def __init__(self, folder: Path, binaries: Path, password: str) -> None:
        self._folder: Final = folder
        self._binaries: Final = binaries
        self._password: Final = password

    def url(self, database: str = "postgres", *, socket: Path | None = None) -> str:
        """Of one database; by another socket, when something stands in between."""
        host = socket or self._folder
        return f"postgresql://{USER}:{self._password}@/{database}?host={host}&port={PORT}"

    @property
    def socket(self) -> Path:
        return self._folder / f".s.PGSQL.{PORT}"

    @property
    def log(self) -> str:
        """What the server said."""
        return (self._folder / "server.log").read_text(encoding="utf-8", errors="replace")

    def start(self, *options: str) -> None:
        """Start it and wait until it takes connections; `options` as in `fsync=off`."""
        settings = (f"unix_socket_directories={self._folder}", "listen_addresses=", f"port={PORT}", *options)
        joined = " ".join(f"-c {setting}" for setting in settings)
        log = ("-l", str(self._folder / "server.log"))
        ends = time.monotonic() + _START_S
        while self._control(*log, "-o", joined, "start"):
            if time.monotonic() > ends:
                raise NoPostgresError(f"PostgreSQL did not start within {_START_S} s:\n{self.log}")
            time.sleep(0.1)  # children of a killed server still hold its memory

    def stop(self) -> None:
        """Shut it down as an operator would; idempotent."""
        self._control("-m", "fast", "stop")

    def kill(self) -> None:
        """`kill -9` of the server."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0])
        os.kill(pid, signal.SIGKILL)
        while started_at(pid) is not None:
            time.sleep(_POLL_S)

    def kill_backends(self, database: str) -> int:
        """`kill -9` of every process that serves a connection to `database`; how many that were.

        The server then restarts all of them.
        """
        pids = self.psql(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")  # noqa: S608 - ours
        for pid in pids.split():
            with contextlib.suppress(ProcessLookupError):  # the first death makes the server end the others
                os.kill(int(pid), signal.SIGKILL)
        return len(pids.split())

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """What a statement gives, unaligned."""
        command = [
            "-h",
            str(self._folder),
            "-p",
            str(PORT),
            "-U",
            USER,
            "-d",
            database,
            "-v",
            "ON_ERROR_STOP=1",
        ]
        done = subprocess.run(
            [str(self._binaries / "psql"), "-X", "-A", "-t", "-q", *command, "-c", sql],
            env={"PGPASSWORD": self._password, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr}\nserver:\n{self.log[-2000:]}")
        return done.stdout.strip()

    def wait_until_ready(self) -> None:
        """After `kill_backends`, when it has restarted what serves connections."""
        ends = time.monotonic() + _START_S
        while True:
            try:
                self.psql("SELECT 1")
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def create_database(self, *, encoding: str = "UTF8") -> str:
        """A new one; its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.psql(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        return name

    def drop_database(self, name: str) -> None:
        """With whatever is connected to it."""
        self.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _control(self, *arguments: str) -> int:
        """pg_ctl, which waits; it starts a server that is nobody's child."""
        return _run_as_nobody(
            self._folder, str(self._binaries / "pg_ctl"), "-D", str(self._folder / "data"), "-w", *arguments
        )


def make_server(folder: Path) -> PostgresServer:
    """A server in `folder`, which is made; not started yet. A janitor watches over it.

    Raises:
        NoPostgresError: there is none on this machine, or none may be started by this user.
    """
    binaries = find_binaries()
    if binaries is None:
        raise NoPostgresError(WHAT_IS_MISSING)
    folder.mkdir(mode=0o700, exist_ok=True)
    _watch_over(folder)
    password = secrets.token_hex(16)
    secret = folder / "password"
    secret.write_text(password, encoding="utf-8")
    if os.geteuid() == 0:
        user = _nobody()
        for path in (folder, secret):
            os.chown(path, user.pw_uid, user.pw_gid)
    options = (
        "-U",
        USER,
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    )
    if _run_as_nobody(folder, str(binaries / "initdb"), "-D", str(folder / "data"), *options):
        said = (folder / "said").read_text(encoding="utf-8", errors="replace")
        raise NoPostgresError(f"initdb failed, so nothing of the PostgreSQL store was proven: {said}")
    return PostgresServer(folder, binaries, password)


def private_folder() -> Path:
    """A new folder for a server of one test."""
    return Path(tempfile.mkdtemp(prefix="flowrx-postgres-", dir=_base()))


def shared_server() -> PostgresServer:
    """The server of this session: the first who asks starts it, the janitor stops it at the end.

    A killed process loses nothing that the kernel has, so `fsync` is off: only a power cut would show it.
    """
    pid = session_pid()
    folder = _base() / f"flowrx-postgres-{pid}-{started_at(pid)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    known = folder / "password"
    ready = folder / "ready"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            server = make_server(folder)
            server.start("fsync=off", "max_connections=200", "shared_buffers=32MB")
            ready.write_text(json.dumps({"binaries": str(find_binaries())}), encoding="utf-8")
            return server
    binaries = Path(json.loads(ready.read_text(encoding="utf-8"))["binaries"])
    return PostgresServer(folder, binaries, known.read_text(encoding="utf-8"))


def remove(folder: Path) -> None:
    """A folder whose server was stopped."""
    shutil.rmtree(folder, ignore_errors=True)


def _watch_over(folder: Path) -> None:
    pid = session_pid()
    janitor = Path(__file__).with_name("janitor.py")
    subprocess.run(  # it goes on by itself
        [sys.executable, str(janitor), str(pid), str(started_at(pid)), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        start_new_session=True,
    )


def _base() -> Path:
    """Where an unprivileged user gets to, which TMPDIR may not be; short, as part of a socket's name."""
    return Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())


def _run_as_nobody(folder: Path, *command: str) -> int:
    """Run a command as somebody who may run a server, which root may not; what it says goes to the folder."""
    somebody = _nobody() if os.geteuid() == 0 else None
    with (folder / "said").open("wb") as said:
        return subprocess.run(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            check=False,
            start_new_session=True,  # a Ctrl-C of the session is not the server's
            user=None if somebody is None else somebody.pw_uid,
            group=None if somebody is None else somebody.pw_gid,
            extra_groups=None if somebody is None else (),
        ).returncode


def _nobody() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgresError(
        "root may not run PostgreSQL, and there is neither a user postgres nor nobody here, so nothing of "
        "the PostgreSQL store was proven"
    )


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0
