"""Reading a file once, from a position to its end.

Owns: `WholeReader`.
Does not own: opening and resuming (files.opening), files that grow (files.tail).

Always holds: every row of the file as it was at its end is handed over once; a file cut short meanwhile is
an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.files.identity import LazyPositions
from connectors.files.opening import OpenFile, translated
from connectors.formats.framing import Block
from connectors.formats.handover import BlockReader
from flowcore.connector import Position
from flowcore.errors import SourceError


class WholeReader(BlockReader):
    """A reader of one file; ends at the end of the file.

    Holds: one decoded chunk of 256 KiB, and the unfinished row after it, at most `max_line_bytes`.
    """

    def __init__(self, file: OpenFile) -> None:
        super().__init__()
        self._open_file = file
        self._at_end = False

    def _produce(self) -> Block | None:
        file = self._open_file
        with translated(file.path):
            while not self._at_end:
                first = file.offset == 0
                chunk = b"" if file.has_more else file.read()
                block = file.feed(chunk, first=first) if chunk or file.has_more else self._last()
                if block.values:
                    return block
        return None

    def _last(self) -> Block:
        file = self._open_file
        size = file.status().st_size
        if file.is_plain and size < file.offset:
            raise SourceError(
                f"{file.path}: was cut from {file.offset} to {size} bytes while it was read; a file that is "
                f"rotated needs mode: tail",
                path=file.path,
            )
        block = file.end()
        self._at_end = not block.values
        return block

    def _positions(self, block: Block, first: int, stop: int) -> Sequence[Position]:
        file = self._open_file
        return LazyPositions(file.identity, file.stretch, block.ends, block.lines, first, stop)

    def _release(self) -> None:
        self._open_file.close()

    def __repr__(self) -> str:
        return f"<WholeReader {self._open_file.path!r} at line {self._open_file.line}>"
