"""A file being written: locked, whole lines only, durable when it says so.

Owns: `AppendFile`, `AtomicFile`, what a crash left behind, the translation of operating system errors.
Does not own: how a row becomes a line (formats.encoding), threads and cancellation (files.sink).

Always holds: after an operation failed the file ends where it ended before; two writers never have one
file at a time. After a failed fsync nothing is written any more: the system forgets what it could not put on
the disk and says so once, so a later fsync that succeeds proves nothing. All calls block; they are made in a
thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from connectors.formats.csv_records import leaves_open
from connectors.formats.encoding import OutputFormat
from flowcore.errors import SinkError

_SCAN_BYTES: Final = 1 << 20
_TORN_BYTES: Final = 64 << 20
"""A longer last line without an end is no work of a crash, and is left alone."""
_REASONS: Final = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EFBIG: "the file would be larger than the system allows this process; raise the limit",
    errno.EACCES: "permission denied; check the owner and mode of the file and its folder",
    errno.EPERM: "not permitted; check the owner, mode and attributes of the file and its folder",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a part of the path is no folder; check the path",
    errno.ENOENT: "the folder does not exist; make it, or set create_folder: true",
}


@contextmanager
def translated(path: str, doing: str) -> Generator[None]:
    """Errors of the operating system as SinkError that names the file and what to do."""
    try:
        yield
    except SinkError:
        raise
    except OSError as fault:
        reason = _REASONS.get(fault.errno or 0, fault.strerror or str(fault))
        raise SinkError(
            f"cannot {doing} {path!r}: {reason}", path=path, reason=errno.errorcode.get(fault.errno or 0)
        ) from fault


class _Output:
    """What both modes share: one descriptor, appended to, cut back when an append fails."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._size = 0
        self._broken: str | None = None

    @property
    def size(self) -> int:
        return self._size

    def _open_locked(self, path: str) -> int:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            try:
                _expect_regular(descriptor, self.path)
                _lock(descriptor, self.path)
                if _is_at(descriptor, path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _append(self, data: bytes, *, durable: bool) -> None:
        if self._broken is not None:
            raise SinkError(f"{self.path!r} cannot be written any more: {self._broken}", path=self.path)
        if self._descriptor is None:
            raise SinkError(f"{self.path!r} is not open", path=self.path)
        if not data:
            return
        written = False
        try:
            with translated(self.path, "write"):
                _write_all(self._descriptor, data, self._size)
            if durable:
                self._sync()
            written = True
        finally:
            if not written:
                self._cut_back()
        self._size += len(data)

    def _sync(self) -> None:
        assert self._descriptor is not None  # noqa: S101 - only called while open
        try:
            os.fsync(self._descriptor)
        except OSError as fault:
            reason = _REASONS.get(fault.errno or 0, fault.strerror or str(fault))
            self._broken = (
                f"the disk did not take what was written ({reason}), and what of it is there cannot be "
                f"known; its rows are not acknowledged. See to the disk and run again"
            )
            raise SinkError(
                f"cannot write {self.path!r}: {self._broken}",
                path=self.path,
                reason=errno.errorcode.get(fault.errno or 0),
            ) from fault

    def _cut_back(self) -> None:
        try:
            assert self._descriptor is not None  # noqa: S101 - only called while open
            os.ftruncate(self._descriptor, self._size)
        except OSError as fault:
            self._broken = (
                f"a write failed and its beginning could not be taken back ({fault}); repair the file"
            )

    def close(self) -> None:
        """Unlock and close; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class AppendFile(_Output):
    """Lines added at the end; durable when `append` returns."""

    def __init__(self, path: str, *, format: OutputFormat, delimiter: str) -> None:
        super().__init__(path)
        self._format: OutputFormat = format
        self._delimiter = delimiter.encode().decode("latin-1")

    def open(self) -> str | None:
        """Lock the file, made if need be, and repair a torn last line; what was repaired, if anything."""
        with translated(self.path, "open"):
            self._descriptor = self._open_locked(self.path)
            try:
                _sync_folder(self.path)
                return self._repair(self._descriptor)
            except BaseException:
                self.close()
                raise

    def append(self, data: bytes) -> None:
        self._append(data, durable=True)

    def beginning(self) -> bytes:
        """The first mebibyte, or all there is."""
        assert self._descriptor is not None  # noqa: S101 - called after open
        return os.pread(self._descriptor, _SCAN_BYTES, 0)

    def _repair(self, descriptor: int) -> str | None:
        self._size = os.fstat(descriptor).st_size
        whole = self._end_of_rows(descriptor)
        if whole == self._size:
            return None
        if self._size - whole > _TORN_BYTES:
            raise SinkError(
                f"{self.path!r}: what begins at byte {whole} has no end after {self._size - whole} bytes, "
                f"and rows after it could not be read; is it {self._format}? Repair it, or write to "
                f"another file",
                path=self.path,
                offset=whole,
            )
        torn = _read_all(descriptor, whole, self._size)
        if self._format == "jsonl" and _is_json(torn):
            self._append(b"\n", durable=True)
            return f"{self.path}: the last line had no newline; it is a whole value and was given one"
        aside = f"{self.path}.torn"
        with open(aside, "ab") as saved:  # noqa: PTH123 - paths are text throughout
            saved.write(torn + b"\n")
            saved.flush()
            os.fsync(saved.fileno())
        _sync_folder(aside)
        os.ftruncate(descriptor, whole)
        os.fsync(descriptor)
        self._size = whole
        return (
            f"{self.path}: the last line was cut short by a crash, {len(torn)} bytes without an end; "
            f"they were moved to {aside!r}, and the row they began was never acknowledged"
        )

    def _end_of_rows(self, descriptor: int) -> int:
        """Where the last whole row ends. CSV is read from the start: a quoted newline ends no row."""
        if self._format == "csv":
            return _end_of_records(descriptor, self._delimiter)
        at = self._size
        while at > 0:
            begin = max(0, at - _SCAN_BYTES)
            found = os.pread(descriptor, at - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            at = begin
        return 0


class AtomicFile(_Output):
    """A new file beside the old one, which it replaces when finished; until then nothing of it is seen."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        folder, name = os.path.split(path)
        self._temporary = os.path.join(folder, f".{name}.partial")  # noqa: PTH118 - paths are text throughout
        self._target: int | None = None

    def open(self) -> None:
        """Lock the target, if there is one, and begin the new file; what a crash left of one is discarded."""
        with translated(self.path, "open"):
            try:
                self._lock_target()
                self._descriptor = self._open_locked(self._temporary)
                os.ftruncate(self._descriptor, 0)
                if self._target is not None:
                    os.fchmod(self._descriptor, stat.S_IMODE(os.fstat(self._target).st_mode))
            except BaseException:
                self.close()
                raise

    def append(self, data: bytes) -> None:
        self._append(data, durable=False)

    def finish(self) -> None:
        """Make all that was appended durable and visible at once."""
        if self._descriptor is None or self._broken is not None:
            raise SinkError(
                f"{self.path!r} cannot be finished: {self._broken or 'it is not open'}", path=self.path
            )
        self._sync()
        with translated(self.path, "replace"):
            if self._target is None:
                self._lock_target()
            os.rename(self._temporary, self.path)  # noqa: PTH104 - as above
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
            _sync_folder(self.path)

    def close(self) -> None:
        """Discard what was not finished; idempotent."""
        if self._descriptor is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)  # noqa: PTH108 - as above
        super().close()
        if self._target is not None:
            os.close(self._target)
            self._target = None

    def _lock_target(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self._target = descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SinkError(
                f"{self.path!r} is no regular file; files.sink writes regular files", path=self.path
            )
        _lock(descriptor, self.path)


def make_folder(path: str) -> None:
    """The folder of `path`, with those above it; durable when it returns."""
    folder = os.path.dirname(path)  # noqa: PTH120 - paths are text throughout
    missing = folder
    made: list[str] = []
    while missing and not os.path.lexists(missing):
        made.append(missing)
        missing = os.path.dirname(missing)  # noqa: PTH120 - as above
    with translated(folder, "make the folder"):
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - as above
        for each in reversed(made):
            _sync_folder(each)


def _expect_regular(descriptor: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise SinkError(f"{path!r} is no regular file; files.sink writes regular files", path=path)


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _lock(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        raise SinkError(
            f"{path!r} is being written by another sink, here or in another process; give each its own file",
            path=path,
            locked=True,
        ) from fault


def _is_at(descriptor: int, path: str) -> bool:
    """The path still names the open file: it was not replaced before the lock was held."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 - as above
    except FileNotFoundError:
        return False


def _sync_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120 - as above
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, begin: int, end: int) -> bytes:
    parts: list[bytes] = []
    while begin < end and (part := os.pread(descriptor, min(_SCAN_BYTES, end - begin), begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _end_of_records(descriptor: int, delimiter: str) -> int:
    """Offset after the last newline that ends a record.

    Cost: one pass over the file; a second, slower one when its quotes are odd or its end is no newline.
    """
    at, quotes, last = 0, 0, b"\n"
    while chunk := os.pread(descriptor, _SCAN_BYTES, at):
        quotes += chunk.count(b'"')
        at, last = at + len(chunk), chunk[-1:]
    if quotes % 2 == 0 and last == b"\n":
        return at
    end, offset, is_open = 0, 0, False
    with os.fdopen(os.dup(descriptor), "rb") as lines:
        lines.seek(0)
        for line in lines:
            offset += len(line)
            # Each byte is a letter in latin-1, so cells are told apart whatever the text is.
            is_open = leaves_open(line.decode("latin-1"), is_open=is_open, delimiter=delimiter)
            if not is_open and line.endswith(b"\n"):
                end = offset
    return end


def _is_json(line: bytes) -> bool:
    # A number may be the beginning of a longer one; what has its closing bracket or quote is whole.
    if line[:1] not in (b"{", b"[", b'"'):
        return False
    try:
        msgspec.json.decode(line)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
    return True
