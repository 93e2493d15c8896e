"""The format of a SQLite file of ours: its mark, its version, how it is made and brought up to date.

Owns: `SqliteFormat`, making a file, and the checks before one is used.
Does not own: threads (sqlite_file), the tables of one format.

Always holds: a file appears under its name complete or not at all, so that one that is empty was cut and is
refused. A version is reached in one transaction; of several processes one does it. All of this is blocking.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowcore.store_errors import (
    StoreDamagedError,
    StoreFailedError,
    StoreFormatError,
    StoreVersionError,
)

CHECKED_BYTES: Final = 32 << 20
"""Up to this size a file is checked as a whole when it is opened; larger ones as far as they are read."""


@dataclass(frozen=True, kw_only=True)
class SqliteFormat:
    """What a file holds."""

    what: str
    """In messages: `a store`, `positions`."""
    mark: int
    """SQLite's `application_id`, by which the file is known."""
    migrations: tuple[tuple[str, ...], ...]
    """Statements by version: the n-th lead from version n to n + 1; SQLite's `user_version`."""
    unmarked_table: str | None = None
    """The one table of files that were written, as version 1, before there was a mark."""

    @property
    def version(self) -> int:
        return len(self.migrations)


def make_file(path: Path, format: SqliteFormat, url: str) -> None:
    """Make the file, unless another process is faster.

    Raises:
        StoreDamagedError: it was there before: its log still is.
        OSError, sqlite3.Error: it cannot be made; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_alone(path, url)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    try:
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id={format.mark}")
            _apply(connection, format, since=0)
            connection.execute("COMMIT")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        _sync_folder(path.parent)
    finally:
        for left in (draft, *(Path(f"{draft}{end}") for end in ("-journal", "-wal", "-shm"))):
            left.unlink(missing_ok=True)


def _check_alone(path: Path, url: str) -> None:
    """SQLite would take the log of a file that is gone for one of the new file."""
    for end in ("-wal", "-journal"):
        log = Path(f"{path}{end}")
        if log.exists() and log.stat().st_size and not path.exists():
            raise StoreDamagedError(
                f"store {url}: the file is gone, and its log {log.name!r} is still there: it was removed "
                "without it. No new one was made: put the file back, or delete the log, too, to begin anew",
                url=url,
            )


def open_file(
    path: Path, format: SqliteFormat, url: str, *, busy_s: float, checked: bool
) -> sqlite3.Connection:
    """A connection to an existing file of this format and of the newest version.

    Args:
        path: of the file.
        format: it must have.
        url: names it in errors.
        busy_s: how long another process may hold it.
        checked: it was looked at as a whole before.

    Raises:
        StoreError: it is not usable; it was left as it is.
        sqlite3.Error: as SQLite has it.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise StoreFormatError(
            f"store {url}: the file is empty; FlowRx never leaves one so, it was cut or is something else's. "
            "It was left as it is: restore it from a copy, or delete it to begin anew",
            url=url,
        )
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=busy_s, cached_statements=256
    )
    try:
        _check_mark(connection, format, url)
        _check_version(_version(connection), format, url)
        if not checked and path.stat().st_size <= CHECKED_BYTES:
            _check_whole(connection, url)
        _set_up(connection, url)
        _migrate(connection, format, url)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_mark(connection: sqlite3.Connection, format: SqliteFormat, url: str) -> None:
    mark = _number(connection, "application_id")
    if mark == format.mark or (mark == 0 and _is_unmarked(connection, format)):
        return
    tables = ", ".join(_tables(connection)[:5]) or "none"
    raise StoreFormatError(
        f"store {url}: the file is not {format.what} but another SQLite database (mark {mark:#x}, tables: "
        f"{tables}); it was left as it is. Name another file",
        url=url,
    )


def _is_unmarked(connection: sqlite3.Connection, format: SqliteFormat) -> bool:
    return format.unmarked_table is not None and _tables(connection) == [format.unmarked_table]


def _check_version(version: int, format: SqliteFormat, url: str) -> None:
    if version > format.version:
        raise StoreVersionError(
            f"store {url}: its schema has version {version}, the newest known here is {format.version}: a "
            "newer FlowRx wrote it. It was left as it is; use that FlowRx, or a newer one",
            url=url,
            found=version,
            known=format.version,
        )


def _check_whole(connection: sqlite3.Connection, url: str) -> None:
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StoreDamagedError(
            f"store {url}: the file is damaged: {found}; it was left as it is. Restore it from a copy",
            url=url,
        )


def _set_up(connection: sqlite3.Connection, url: str) -> None:
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StoreFailedError(
            f"store {url}: the file system has no shared memory for SQLite's log (mode {mode!r} instead of "
            "'wal'); nothing was changed. Put the store on a local disk",
            url=url,
        )


def _migrate(connection: sqlite3.Connection, format: SqliteFormat, url: str) -> None:
    """Bring the file to the newest version; looked at again once nobody else can."""
    if _version(connection) == format.version and _number(connection, "application_id") == format.mark:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        unmarked = _number(connection, "application_id") == 0
        version = 1 if unmarked else _version(connection)
        _check_version(version, format, url)
        connection.execute(f"PRAGMA application_id={format.mark}")
        _apply(connection, format, since=version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _apply(connection: sqlite3.Connection, format: SqliteFormat, *, since: int) -> None:
    for step in format.migrations[since:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={format.version}")


def _version(connection: sqlite3.Connection) -> int:
    return _number(connection, "user_version")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [str(row[0]) for row in rows]


def _sync_folder(folder: Path) -> None:
    """So that the name is there after a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
