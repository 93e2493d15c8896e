"""Following a file that grows, through its rotations.

Owns: `TailReader`.
Does not own: which sibling comes next (files.rotation), opening and resuming (files.opening).

Always holds: each line is handed over once, in order, whether the file is renamed and created anew or
copied and truncated; lines that are known to be gone are an error (or, with `on_lost_position: restart`, a
warning), never silence. A line without its newline waits until it has one or its file was rotated away.

Limits: a copy-and-truncate whose new content, before the next look, is longer than what was read and
begins with the same 256 bytes cannot be told from growth; rotation by rename has no such gap. Compressed
rotations are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from connectors.files.identity import FileIdentity, FilePosition, LazyPositions
from connectors.files.opening import Layout, OpenFile, lost, translated
from connectors.files.rotation import holder_of, siblings_of, successor_of
from connectors.formats.framing import Block
from connectors.formats.handover import BlockReader
from flowcore.connector import Position
from flowcore.context import SourceContext

OnLostPosition = Literal["fail", "restart"]


class TailReader(BlockReader):
    """A reader of one path that never ends by itself; it ends when the run is stopping.

    Holds: one decoded chunk of 256 KiB, and the unfinished row after it, at most `max_line_bytes`.
    """

    def __init__(
        self,
        *,
        path: str,
        absolute: str,
        layout: Layout,
        resume: FilePosition | None,
        ctx: SourceContext,
        poll: timedelta,
        rotate_wait: timedelta,
        on_lost_position: OnLostPosition,
    ) -> None:
        super().__init__()
        self._path = path
        self._absolute = absolute
        self._layout = layout
        self._resume = resume
        self._ctx = ctx
        self._poll = poll
        self._rotate_wait_s = rotate_wait.total_seconds()
        self._on_lost_position: OnLostPosition = on_lost_position
        self._file: OpenFile | None = None
        self._identity = FileIdentity(0, b"")
        self._size_seen = 0
        self._grown_at = ctx.monotonic()
        self._now = self._grown_at
        self._warnings: list[str] = []

    # --- on the loop ---------------------------------------------------------------------------------------

    async def _pause(self) -> bool:
        for warning in self._warnings:
            self._ctx.log(warning, level="warning", path=self._path)
        self._warnings.clear()
        if self._ctx.stopping():
            return False
        await self._ctx.sleep(self._poll)
        self._now = self._ctx.monotonic()
        return True

    def _positions(self, block: Block, first: int, stop: int) -> Sequence[Position]:
        return LazyPositions(self._identity, block.ends, block.lines, first, stop)

    # --- in a thread ---------------------------------------------------------------------------------------

    def _produce(self) -> Block | None:
        with translated(self._path):
            file = self._file or self._begin()
            if file is None:
                return _nothing()
            block = self._more(file)
        self._identity = file.identity
        return block

    def _begin(self) -> OpenFile | None:
        """Open where the last run stopped, or the oldest there is; None while there is no file."""
        resume = self._resume
        if resume is None:
            return self._switch(self._absolute, None) if self._exists() else None
        holder = holder_of(self._absolute, resume)
        if holder is None:
            why = "neither the file nor a rotation of it holds it: it was truncated, replaced or deleted"
            self._lose(resume, why)
            return None
        return self._switch(holder.path, resume)

    def _exists(self) -> bool:
        return any(sibling.path == self._absolute for sibling in siblings_of(self._absolute))

    def _more(self, file: OpenFile) -> Block:
        first = file.offset == 0
        chunk = file.read()
        status = file.status()
        if status.st_size < file.offset:
            self._size_seen = max(self._size_seen, file.offset)
            return self._after_truncation(file)
        if not file.look_again():
            return self._after_truncation(file)
        self._size_seen = status.st_size
        if chunk:
            self._grown_at = self._now
            return file.feed(chunk, first=first)
        following = successor_of(self._absolute, status)
        # The writer may keep the old file open for a while after renaming it.
        if following is None or self._now - self._grown_at < self._rotate_wait_s:
            return _nothing()
        self._identity = file.identity
        last = file.end()
        if last.values:
            return last
        self._switch(following.path, None)
        return _nothing()

    def _after_truncation(self, file: OpenFile) -> Block:
        stopped = file.position()
        copy = next(
            (s for s in [holder_of(self._absolute, stopped)] if s is not None and s.inode != stopped.inode),
            None,
        )
        if copy is not None:
            self._switch(copy.path, stopped)
        elif self._size_seen > stopped.offset:
            unread = self._size_seen - stopped.offset
            self._close_file()
            self._lose(
                stopped, f"the file was truncated with {unread} bytes unread, and no copy of it was found"
            )
        else:
            self._warnings.append(
                f"{self._path}: was truncated after all of its {stopped.line} lines were read"
            )
            self._switch(self._absolute, None)
        return _nothing()

    def _lose(self, where: FilePosition, why: str) -> None:
        error = lost(self._path, where, why)
        if self._on_lost_position == "fail":
            self._resume = where
            raise error
        self._warnings.append(f"{error.message}; on_lost_position is restart: reading from the beginning")
        self._resume = None

    def _switch(self, absolute: str, resume: FilePosition | None) -> OpenFile:
        opened = OpenFile(self._path, absolute, self._layout, resume)
        self._close_file()
        self._file = opened
        self._size_seen = opened.status().st_size
        self._grown_at = self._now
        return opened

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _release(self) -> None:
        self._close_file()

    def __repr__(self) -> str:
        return f"<TailReader {self._path!r} {self._file and self._file.line}>"


def _nothing() -> Block:
    return Block([], [], [], {}, begin=0)
