"""Following a file that grows, through its rotations.

Owns: `TailReader`.
Does not own: which file holds a position or comes next (files.finding), opening and resuming (files.opening).

Always holds: each line is handed over once, in order, whether the file is renamed and created anew, copied
and truncated, or compressed afterwards; lines that are known to be gone are an error (or, with
`on_lost_position: restart`, a warning), never silence. A line without its newline waits until it has one or
its file was rotated away.

What nobody can know, since no trace is left of it: lines written and cut off between two looks without a
copy; with copy-and-truncate, lines written between the copy and the cut, and a cut after which, before the
next look, the file grew past the old offset and has the same first 256 bytes and the same 256 bytes before
that offset.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Literal

import msgspec

from connectors.files.bytes import DamagedDataError
from connectors.files.finding import Rotation
from connectors.files.identity import FileIdentity, FilePosition, LazyPositions, Stretch
from connectors.files.opening import Layout, OpenFile, lost, open_regular, translated
from connectors.files.rotation import MOTION_S, InMotionError, Numbered, Sibling
from connectors.formats.framing import Block
from connectors.formats.handover import BlockReader
from flowcore.connector import Position
from flowcore.context import SourceContext
from flowcore.errors import PositionLostError

OnLostPosition = Literal["fail", "restart"]


class TailOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is followed; see `FilesSourceConfig`."""

    poll: timedelta
    rotate_wait: timedelta
    on_lost_position: OnLostPosition
    numbered: Numbered | None


class TailReader(BlockReader):
    """A reader of one path that never ends by itself; it ends when the run is stopping.

    Holds: one decoded chunk of 256 KiB, and the unfinished row after it, at most `max_line_bytes`; the file
    left last stays open, to notice lines that come too late.
    """

    def __init__(
        self,
        *,
        path: str,
        absolute: str,
        layout: Layout,
        resume: FilePosition,
        ctx: SourceContext,
        options: TailOptions,
    ) -> None:
        """`path` is what messages call the file, `absolute` where it is."""
        super().__init__()
        self._path = path
        self._layout = layout
        self._rotation = Rotation(absolute, options.numbered)
        self._resume = resume
        self._ctx = ctx
        self._options = options
        self._rotate_wait_s = options.rotate_wait.total_seconds()
        self._file: OpenFile | None = None
        self._left: _Left | None = None
        self._identity = FileIdentity(0, b"", grows=True)
        self._stretch = Stretch(0, b"")
        self._seen: os.stat_result | None = None
        """Of the open file, when it was last looked at and not truncated."""
        self._now = ctx.monotonic()
        self._quiet_since = self._now
        """Since when the open file has not grown while it was known to be rotated."""
        self._rotated = False
        self._doubt: tuple[int, int, float] | None = None
        """A compressed file that ended too early: inode, size, and since when it has had that size."""
        self._in_motion_since: float | None = None
        self._refused = 0
        """Inode of a holder that held the position no more when it was opened: it may have been cut."""
        self._warnings: list[str] = []

    # --- on the loop ---------------------------------------------------------------------------------------

    async def _advance(self) -> bool:
        self._now = self._ctx.monotonic()
        try:
            return await super()._advance()
        finally:
            self._tell_warnings()

    async def _pause(self) -> bool:
        self._tell_warnings()
        if self._ctx.stopping():
            return False
        await self._ctx.sleep(self._options.poll)
        return True

    def _tell_warnings(self) -> None:
        warnings, self._warnings = self._warnings, []
        for warning in warnings:
            self._ctx.log(warning, level="warning", path=self._path)

    def _positions(self, block: Block, first: int, stop: int) -> Sequence[Position]:
        return LazyPositions(self._identity, self._stretch, block.ends, block.lines, first, stop)

    # --- in a thread ---------------------------------------------------------------------------------------

    def _produce(self) -> Block | None:
        """The next lines. While the folder is in motion nothing is decided: the next look begins anew."""
        try:
            block = self._look()
        except InMotionError:
            if self._in_motion_since is None:
                self._in_motion_since = self._now
            if self._now - self._in_motion_since > MOTION_S:
                raise
            return _nothing()
        self._in_motion_since = None
        return block

    def _look(self) -> Block:
        with translated(self._path):
            self._expect_nothing_late()
            file = self._file or self._begin()
            if file is None:
                return _nothing()
            block = self._more(file)
        self._identity, self._stretch = file.identity, file.stretch
        return block

    def _begin(self) -> OpenFile | None:
        """Open the file that holds the position; None while there is none with a line to read."""
        where = self._resume
        found = self._rotation.holder(where)
        holder = found.holder
        if holder is None and not where.is_before:
            self._lose(where, _nowhere(found.closed))
            return None
        if holder is None or (where.is_before and holder.is_base and holder.size == 0):
            self._expect_same_file()
            return None
        if found.alike:
            self._warnings.append(
                f"{self._path}: {holder.path} and {', '.join(found.alike)} hold the same bytes up to line "
                f"{where.line}; reading on in the first, lines may come again"
            )
        try:
            return self._switch(holder, None if where.is_before else where)
        except PositionLostError as fault:
            if self._refused == holder.inode:
                start = self._rotation.start(oldest=False)
                self._tell(fault)
                self._resume = start
            self._refused = holder.inode
            return None

    def _more(self, file: OpenFile) -> Block:
        if file.has_more:
            return file.feed(b"", first=False)
        first = file.offset == 0
        try:
            chunk = file.read()
        except DamagedDataError:
            if not self._may_be_in_the_making(file):
                raise
            self._stand_at(file.position())
            return _nothing()
        if file.is_plain and not file.is_as_read():
            self._after_truncation(file)
            return _nothing()
        self._seen = file.status()
        if chunk:
            self._quiet_since = self._now
            return file.feed(chunk, first=first)
        return self._at_end(file, self._seen)

    def _at_end(self, file: OpenFile, status: os.stat_result) -> Block:
        """Nothing more is there now: is that the end of this file?"""
        position = file.position()
        following, known = self._rotation.successor(position, status)
        deleted = status.st_nlink == 0
        if following is None and not deleted:
            self._expect_same_file()
            return _nothing()
        if not self._rotated:
            # The writer may keep the old file open for a while after renaming it.
            self._rotated, self._quiet_since = True, self._now
        is_empty = following is not None and following.is_base and following.size == 0
        if is_empty and not deleted:
            return _nothing()  # as long as nothing is in the next file, this one may still be written
        may_grow = file.is_plain and (following is None or following.is_base)
        if may_grow and self._now - self._quiet_since < self._rotate_wait_s:
            return _nothing()
        last = file.end()
        if last.values:
            return last
        if not known:
            self._warnings.append(
                f"{self._path}: was deleted after its {file.line} lines were read; whether other files came "
                f"and went before the next one was found cannot be known"
            )
        if following is None or is_empty:
            self._leave(file, status)
            self._resume = FilePosition.before(since=status.st_mtime_ns)
        else:
            self._switch(following, None)
        return _nothing()

    def _may_be_in_the_making(self, file: OpenFile) -> bool:
        """Whether a compressed file that ends too early has changed within `rotate_wait`."""
        status = file.status()
        state = (status.st_ino, status.st_size)
        if self._doubt is None or self._doubt[:2] != state:
            self._doubt = (*state, self._now)
        return self._now - self._doubt[2] < self._rotate_wait_s

    def _after_truncation(self, file: OpenFile) -> None:
        stopped, seen = file.position(), self._seen
        found = self._rotation.holder(stopped)
        self._stand_at(stopped)
        if found.holder is not None and not stopped.is_before:
            return  # a copy was made before
        unread = 0 if seen is None else seen.st_size - stopped.offset
        if unread > 0:
            self._lose(
                stopped, f"the file was truncated with {unread} bytes unread, and no copy of it was found"
            )
            return
        self._warnings.append(
            f"{self._path}: was truncated after all of its {stopped.line} lines were read, and no copy of it "
            f"was found; what was written after that and before the cut, if anything, is lost"
        )
        self._resume = FilePosition.before(
            inode=stopped.inode, since=None if seen is None else seen.st_mtime_ns
        )

    # --- what is lost --------------------------------------------------------------------------------------

    def _expect_nothing_late(self) -> None:
        left = self._left
        late = 0 if left is None else left.late_bytes()
        if left is None or late <= 0:
            return
        left.close()
        self._left = None
        self._tell(
            PositionLostError(
                f"{self._path}: {late} bytes were added to its rotation after that had been quiet for "
                f"{self._rotate_wait_s:g} s and was left at byte {left.position.offset}; they are not read. "
                f"Raise rotate_wait above the time the writer keeps a rotated file open",
                path=self._path,
                offset=left.position.offset,
                bytes=late,
            )
        )

    def _expect_same_file(self) -> None:
        """Nothing else bears the name: waiting for that would be a standstill."""
        now = self._ctx.allowed_path(self._path)
        if now != self._rotation.path:
            raise PositionLostError(
                f"{self._path} led to {self._rotation.path!r} and leads to {now!r} now; a link that is "
                f"switched is not followed. Follow the files themselves, by a pattern",
                path=self._path,
            )
        with suppress(FileNotFoundError):
            open_regular(self._path, now).close()

    def _lose(self, where: FilePosition, why: str) -> None:
        start = self._rotation.start(oldest=False)
        self._tell(lost(self._path, where, why))
        self._resume = start

    def _tell(self, error: PositionLostError) -> None:
        if self._options.on_lost_position == "fail":
            raise error
        self._warnings.append(f"{error.message} (on_lost_position is restart)")

    # --- opening and closing -------------------------------------------------------------------------------

    def _switch(self, sibling: Sibling, resume: FilePosition | None) -> OpenFile | None:
        """Go on in another file; None when it was rotated on meanwhile: the next look finds it again."""
        with translated(sibling.path):
            try:
                opened = OpenFile(
                    self._path, sibling.path, self._layout, resume, grows=True, inode=sibling.inode
                )
            except FileNotFoundError:
                return None
        if self._file is not None:
            self._leave(self._file, self._seen)
        self._file = opened
        self._seen = opened.status()
        self._quiet_since, self._rotated = self._now, False
        return opened

    def _stand_at(self, where: FilePosition) -> None:
        """Go on from a position, wherever the next look finds it."""
        self._resume = where
        if self._file is not None:
            self._file.close()
            self._file = None

    def _leave(self, file: OpenFile, status: os.stat_result | None) -> None:
        """The file was read to its end; it stays open until the next one is left."""
        if self._left is not None:
            self._left.close()
        self._left = None
        if file.is_plain and status is not None and status.st_size == file.offset:
            self._left = _Left(file)
        else:
            file.close()
        self._file = None

    def _release(self) -> None:
        if self._left is not None:
            self._left.close()
        if self._file is not None:
            self._file.close()
        self._left = self._file = None

    def __repr__(self) -> str:
        return f"<TailReader {self._path!r} {self._file and self._file.line}>"


class _Left:
    """A file that was read to its end and is watched for lines that come too late."""

    def __init__(self, file: OpenFile) -> None:
        self.position = file.position()
        self._file = file
        self._size = file.offset

    def late_bytes(self) -> int:
        return self._file.status().st_size - self._size

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


def _nowhere(closed: Sequence[str]) -> str:
    why = "neither the file nor a rotation of it holds it: it was truncated, replaced or deleted"
    return why if not closed else f"{why}. Could not be looked into: {'; '.join(closed)}"


def _nothing() -> Block:
    return Block([], [], [], {}, begin=0)
