"""Which failure of SQLite and its disk is which of ours.

Owns: the translation, and which failures leave a connection unusable.
Does not own: what was being done (the caller says it).

Always holds: the message says what happened, whether anything was changed, and what to do.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import Final, TypeAlias

from flowcore.store_errors import (
    StoreAccessError,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFormatError,
    StoreFullError,
    StoreInputError,
    StoreTimeoutError,
)

_BUSY: Final = "another process held the file for too long"
_FULL: Final = "the disk is full"
_ACCESS: Final = "the file or its folder may not be opened or written"
_DAMAGED: Final = "the file is damaged"

_DISK: Final = (StoreFailedError, "the disk failed", "look at the disk, then open the store again")
_REFUSED: Final = (StoreFailedError, "SQLite refused", "that is worth a report to FlowRx")

_BY_CODE: Final[dict[int, tuple[type[StoreError], str, str]]] = {
    sqlite3.SQLITE_BUSY: (StoreTimeoutError, _BUSY, "try again, or see which process that is"),
    sqlite3.SQLITE_LOCKED: (StoreTimeoutError, _BUSY, "try again, or see which process that is"),
    sqlite3.SQLITE_FULL: (StoreFullError, _FULL, "free space, then try again"),
    sqlite3.SQLITE_READONLY: (StoreAccessError, _ACCESS, "allow it, or put the store elsewhere"),
    sqlite3.SQLITE_CANTOPEN: (StoreAccessError, _ACCESS, "allow it, or put the store elsewhere"),
    sqlite3.SQLITE_PERM: (StoreAccessError, _ACCESS, "allow it, or put the store elsewhere"),
    sqlite3.SQLITE_CORRUPT: (StoreDamagedError, _DAMAGED, "restore it from a copy"),
    sqlite3.SQLITE_NOTADB: (
        StoreFormatError,
        "it is no SQLite database, or its beginning is damaged",
        "name another file, or restore this one from a copy",
    ),
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_NOMEM: (StoreFullError, "there is no memory left", "free memory, then try again"),
    sqlite3.SQLITE_TOOBIG: (StoreInputError, "a value is too large for SQLite", "keep it elsewhere"),
}
_BREAKING: Final = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_BUSY,
}  # fmt: skip
_BEFORE_ANYTHING: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
"""What a commit meets before its last frame is in the log: without that one the others do not count."""
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}
_NO_RIGHT: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


Fault: TypeAlias = sqlite3.Error | OSError | UnicodeDecodeError
"""What work on a file may meet; the last one where SQLite tells of a text that is none any more."""


def breaks(fault: Exception) -> bool:
    """Whether the whole transaction is lost with it, and the connection is better opened anew."""
    return isinstance(fault, UnicodeDecodeError) or (
        isinstance(fault, sqlite3.Error) and _code(fault) in _BREAKING
    )


def translated(fault: Fault, url: str, doing: str, *, outcome: str) -> StoreError:
    """The error of ours.

    Args:
        fault: becomes its cause, where it is raised from it.
        url: of the store.
        doing: what was asked of it.
        outcome: `nothing` was changed, or that is `unknown`: a commit failed, and not for want of room.
    """
    kind, what, remedy = _kind_of(fault)
    if isinstance(fault, sqlite3.Error) and _code(fault) in _BEFORE_ANYTHING:
        outcome = "nothing"
    changed = "nothing was changed" if outcome == "nothing" else "whether it was done is unknown"
    return kind(f"store {url}: {doing}: {what} ({fault}); {changed}; {remedy}", url=url, outcome=outcome)


def _kind_of(fault: Fault) -> tuple[type[StoreError], str, str]:
    if isinstance(fault, UnicodeDecodeError):
        return _BY_CODE[sqlite3.SQLITE_CORRUPT]
    return _by_errno(fault) if isinstance(fault, OSError) else _by_code(fault)


def _code(fault: sqlite3.Error) -> int | None:
    """SQLite's primary code; None for what Python's module finds by itself."""
    code = getattr(fault, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _by_code(fault: sqlite3.Error) -> tuple[type[StoreError], str, str]:
    code = _code(fault)
    if code is None and "decode" in str(fault):
        return _BY_CODE[sqlite3.SQLITE_CORRUPT]
    if getattr(fault, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
        return _BY_CODE[sqlite3.SQLITE_FULL]
    return _REFUSED if code is None else _BY_CODE.get(code, _REFUSED)


def _by_errno(fault: OSError) -> tuple[type[StoreError], str, str]:
    if fault.errno in _NO_ROOM:
        return _BY_CODE[sqlite3.SQLITE_FULL]
    return _BY_CODE[sqlite3.SQLITE_PERM] if fault.errno in _NO_RIGHT else _DISK
