"""stdio.source: rows from the standard input, as they come, without holding up the loop.

Owns: `StdioSource`.
Does not own: formats (connectors.formats).

Always holds: closing never waits for input: the thread that waits for it is woken.
"""

from __future__ import annotations

import os
import select
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, Literal

import msgspec

from connectors.formats.decoding import JsonLinesDecoder, LinesDecoder
from connectors.formats.framing import Block
from connectors.formats.handover import BlockReader
from flowcore.connector import Position, Reader, Source
from flowcore.context import SourceContext
from flowcore.errors import SourceError

STDIN: Final = 0
_CHUNK_BYTES: Final = 1 << 16
_BOM: Final = b"\xef\xbb\xbf"


class StdioSourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the standard input holds."""

    format: Literal["jsonl", "lines"] = "jsonl"
    values: Literal["json", "lossless"] = "json"
    """jsonl: `lossless` turns the `$` forms that sinks write with the same setting into the values they
    stand for."""
    max_line_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 16 << 20
    """A longer line is an error row that holds its beginning."""


class StdioSource(Source[StdioSourceConfig, object], type="stdio.source"):
    """Rows of the standard input, UTF-8.

    Emits           a value per line of `jsonl`, text per line of `lines`, as soon as the line is whole.
                    What cannot be decoded is a failed row that says `<stdin>:line`.
    Resumes         never: what was read is gone; after a crash it does not come again.
    Ends            with the input.
    Holds           64 KiB of input, decoded, and one unfinished line of at most `max_line_bytes`.
    Fails           SourceError when the input cannot be read.
    """

    def __init__(self, config: StdioSourceConfig | None = None, *, descriptor: int = STDIN) -> None:
        """`descriptor`: another open file to read; it is not closed."""
        super().__init__(config or StdioSourceConfig())
        self._descriptor = descriptor

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[object]:
        if resume is not None:
            raise SourceError(f"stdio.source cannot resume at {resume!r}: what was read of the input is gone")
        config = self.config
        limit = config.max_line_bytes
        if config.format == "lines":
            return _StdinReader(self._descriptor, LinesDecoder(where="<stdin>", max_line_bytes=limit))
        lossless = config.values == "lossless"
        return _StdinReader(
            self._descriptor, JsonLinesDecoder(where="<stdin>", max_line_bytes=limit, lossless=lossless)
        )


class _StdinReader(BlockReader):
    def __init__(self, descriptor: int, decoder: LinesDecoder | JsonLinesDecoder) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stdio.source")
        super().__init__(executor=self._pool)
        self._descriptor = descriptor
        self._decoder = decoder
        self._wake_read, self._wake_write = os.pipe()
        self._begun = False
        self._at_end = False

    def _produce(self) -> Block | None:
        while not self._at_end:
            block = self._next()
            if block is None:
                return None
            if block.values:
                return block
        return None

    def _next(self) -> Block | None:
        try:
            readable, _, _ = select.select([self._descriptor, self._wake_read], [], [])
            if self._wake_read in readable:
                return None
            chunk = os.read(self._descriptor, _CHUNK_BYTES)
        except (OSError, ValueError) as fault:
            raise SourceError(f"cannot read the standard input: {fault}") from fault
        self._at_end = not chunk
        if not chunk:
            return self._decoder.end()
        if not self._begun:
            self._begun = True
            if chunk.startswith(_BOM):
                self._decoder.skip(len(_BOM))
                chunk = chunk[len(_BOM) :]
        return self._decoder.feed(chunk)

    def _interrupt(self) -> None:
        os.write(self._wake_write, b"x")

    def _release(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._pool.shutdown(wait=False)
