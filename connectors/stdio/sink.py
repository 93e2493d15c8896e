"""stdio.sink: rows as lines on the standard output.

Owns: `StdioSink`.
Does not own: how rows become lines (formats.encoding), what else is printed (the command line prints on
stderr).

Always holds: a row's line is handed to the system whole and in order; a reader that went away is an error
that says so.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

import msgspec

from connectors.formats.encoding import LineEncoder, encode_all, encoder_of
from flowcore.connector import Rows, Sink
from flowcore.context import SinkContext
from flowcore.errors import SinkError

STDOUT: Final = 1
_PIECE_BYTES: Final = select.PIPE_BUF
"""What a pipe that is ready for writing takes without making the writer wait."""


class StdioSinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows are printed."""

    format: Literal["jsonl", "lines"] = "jsonl"
    values: Literal["json", "lossless"] = "json"
    """jsonl: `lossless` writes bytes, NaN and the like in the `$` forms of FlowRx; `json` refuses such
    rows."""


class StdioSink(Sink[StdioSinkConfig, object], type="stdio.sink"):
    """Rows as lines of the standard output.

    Settles         when the system has taken the bytes; what becomes of them is up to the reader of the pipe.
    Fails by row    what the format has no form for.
    Fails           SinkError when the reader has gone (broken pipe) or the output cannot be written. A
                    line may then have been sent in part: a pipe takes nothing back.
    Holds           one batch, encoded; a slow reader holds up `write`, not the loop.
    """

    def __init__(self, config: StdioSinkConfig | None = None, *, descriptor: int = STDOUT) -> None:
        """`descriptor`: another open file to write; it is not closed."""
        super().__init__(config or StdioSinkConfig())
        self._descriptor = descriptor
        lossless = self.config.values == "lossless"
        self._encoder: LineEncoder = encoder_of(
            self.config.format, lossless=lossless, delimiter=",", columns=None
        )
        self._pool: ThreadPoolExecutor | None = None
        self._wake: tuple[int, int] | None = None
        self._broken: str | None = None

    async def open(self, ctx: SinkContext) -> None:
        del ctx
        if self._descriptor == STDOUT:
            sys.stdout.flush()  # what was printed before stays before
        self._wake = os.pipe()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stdio.sink")

    async def write(self, batch: Rows[object]) -> Mapping[int, Exception]:
        if self._pool is None:
            raise SinkError("stdio.sink is not open and was written")
        # One thread, so that batches stay in order; a cancelled write goes on to its end.
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._write, batch.values)

    async def close(self) -> None:
        """End a write that waits for a slow reader; nothing more is sent."""
        pool, self._pool = self._pool, None
        if pool is None or self._wake is None:
            return
        os.write(self._wake[1], b"x")
        await asyncio.to_thread(pool.shutdown)
        for descriptor in self._wake:
            os.close(descriptor)
        self._wake = None

    def _write(self, rows: Sequence[object]) -> Mapping[int, Exception]:
        if self._broken is not None:
            raise SinkError(self._broken)
        lines, errors = encode_all(self._encoder, rows)
        try:
            self._send(memoryview(b"".join(lines)))
        except (OSError, ValueError) as fault:
            self._broken = _reason(fault)
            raise SinkError(self._broken) from fault
        return errors

    def _send(self, data: memoryview) -> None:
        assert self._wake is not None  # noqa: S101 - made by open
        wake = self._wake[0]
        while data:
            woken, _, _ = select.select([wake], [self._descriptor], [])
            if woken:
                raise InterruptedError("the sink was closed while it waited for the reader of the output")
            try:
                data = data[os.write(self._descriptor, data[:_PIECE_BYTES]) :]
            except BlockingIOError:
                continue


def _reason(fault: Exception) -> str:
    if isinstance(fault, BrokenPipeError):
        return "cannot write to the standard output: its reader has gone (broken pipe); start it again"
    return f"cannot write to the standard output: {fault}"
