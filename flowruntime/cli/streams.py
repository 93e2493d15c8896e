"""The standard streams of a command: always there, whatever they are connected to, and sealed at the end.

Owns: what happens to text a stream cannot encode, to a stream that is closed, full or read by nobody.
Does not own: what is printed.

Always holds: nothing of the engine is imported; `seal` never raises, and after it Python's own flush at exit
finds nothing left to write, so that the exit code stays what the command answered.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import suppress
from typing import TextIO

_STANDARD = (0, 1, 2)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class OutputError(OSError):
    """Standard output cannot be written to: its reader has gone, or its disk is full."""


class _Output(io.TextIOWrapper):
    """Standard output, whose errors can be told from those of files a command works with."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as fault:
            raise OutputError(fault.errno, fault.strerror) from fault

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as fault:
            raise OutputError(fault.errno, fault.strerror) from fault


def prepare() -> None:
    """Make the streams usable: a closed one leads nowhere, what standard output cannot encode is escaped."""
    # Python leaves None where the caller has closed the descriptor.
    if sys.stdout is None or sys.stderr is None:
        _occupy()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if sys.stdout is None:
        sys.stdout = _nowhere()
    elif type(sys.stdout) is io.TextIOWrapper:
        sys.stdout = _Output(
            sys.stdout.buffer,
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            line_buffering=sys.stdout.line_buffering,
            write_through=sys.stdout.write_through,
        )


def print_json(text: str) -> None:
    """Print a JSON text; what standard output cannot encode stands there in the escapes of JSON."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        import json

        text = _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    print(text)


def seal() -> OSError | None:
    """Write what is left; gives what kept standard output from being written, None when nothing did."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody is left to be told
        _discard(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError as fault:
        _discard(sys.stdout)
        return fault
    return None


def _discard(stream: TextIO) -> None:
    """Lead a stream nowhere: Python flushes it at exit, which would fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _occupy() -> None:
    """Keep a closed standard descriptor from being given to the next file that is opened."""
    while True:
        taken = os.open(os.devnull, os.O_RDWR)
        if taken not in _STANDARD:
            os.close(taken)
            return


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it stays open as long as the process
