"""Recording a run's events to a file of JSON lines, and reading one back.

Owns: the file's form (`FORMAT`), `Recording`, `RecordingReader`.
Does not own: the form of one event (flowcore.event_codec), who replays what was read.

The file: a header line, one line per event or Gap, an end line with the counts; without that it was cut.

Always holds: events in the file + missed of gaps in the file = events published while recording; the file is
written and synced off the loop thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from flowcore.errors import RunError
from flowcore.event_codec import CODEC, EventCodec, EventDecodeError
from flowcore.events import ExecutionEvent, Gap
from flowruntime.events.bus import EventBus
from flowruntime.events.subscription import SubscriptionLostError

if TYPE_CHECKING:
    import asyncio
    from io import FileIO
    from types import TracebackType
    from typing import BinaryIO, Self

    from flowruntime.events.subscription import Subscription

FORMAT = 1
"""Of the file; the fields of an event have versions of their own."""

BATCH = 512
"""Events written at once."""

H = TypeVar("H", bound=msgspec.Struct)


class RecordingError(RunError, OSError):
    """A recording cannot be written, or what is read is none; `file` and `line` say where."""


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="RecordingStarted"):
    """First line of a recording."""

    format: int = FORMAT
    flowrx: str
    """Version that wrote it."""
    workflow: str
    started_at: float
    since: int
    """Number of the newest event published before."""


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="RecordingEnded"):
    """Last line of a complete recording."""

    events: int
    missed: int


class Recording:
    """Writes every event of a bus to a file, from the moment it is made until it is closed.

    With policy `block` (the default) publishers that ask `EventBus.ready` wait for the disk and nothing is
    lost; with `drop_newest` or `drop_oldest` they never wait and the file has a Gap line where the disk was
    too slow. A disk that fails ends the recording, not the run: it is logged by the bus and raised by
    `aclose`.

    Args:
        bus: whose events; must be used on its loop.
        path: a new file.
        workflow: name or id, for the header.
        flowrx: version, for the header.
        started_at: Unix seconds, for the header.
        kinds: which events; None means all.
        policy: what happens when the disk is slower than the run.
        buffer: most events held meanwhile.

    Raises:
        RecordingError: the file exists or cannot be made.
    """

    def __init__(
        self,
        bus: EventBus,
        path: str | os.PathLike[str],
        *,
        workflow: str,
        flowrx: str,
        started_at: float,
        kinds: Collection[type[ExecutionEvent]] | None = None,
        policy: Literal["block", "drop_oldest", "drop_newest"] = "block",
        buffer: int = 4096,
    ) -> None:
        import asyncio

        self.path = Path(path)
        self.events = 0
        """Written so far."""
        self.missed = 0
        """Counted by the gaps written so far."""
        self._file = _new_file(self.path)
        self._subscription: Subscription[Any] = bus.subscribe(
            kinds or {ExecutionEvent}, policy=policy, buffer=buffer, name=f"recording {self.path.name}"
        )
        header = Header(
            flowrx=flowrx, workflow=workflow, started_at=started_at, since=bus.statistics().published
        )
        self._put(msgspec.json.encode(header) + b"\n")
        self._writer: asyncio.Task[None] = asyncio.create_task(self._write_all())

    async def aclose(self) -> None:
        """Write what is buffered, the end line, and sync; return when it is on the disk.

        Raises:
            RecordingError: the disk failed, now or before, or the bus disconnected the recording as too slow.
        """
        self._subscription.finish("the recording was closed")
        await self._writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _write_all(self) -> None:
        import asyncio

        try:
            while entries := await self._subscription.batch(BATCH):
                await asyncio.to_thread(self._write, entries)
            await asyncio.to_thread(self._end)
        except OSError as broken:
            if isinstance(broken, SubscriptionLostError):
                raise self._failed(str(broken)) from broken
            self._subscription.lose("raised", f"writing failed: {broken}", broken)
            self._subscription.close()
            raise self._failed(str(broken)) from broken
        finally:
            self._file.close()

    def _write(self, entries: list[ExecutionEvent | Gap]) -> None:
        self._put(b"".join(CODEC.encode_json(entry) + b"\n" for entry in entries))
        for entry in entries:
            if isinstance(entry, Gap):
                self.missed += entry.missed
            else:
                self.events += 1

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # unbuffered files may take a part only
            left = left[self._file.write(left) :]

    def _end(self) -> None:
        end = End(events=self.events, missed=self.missed)
        self._put(msgspec.json.encode(end) + b"\n")
        os.fsync(self._file.fileno())

    def _failed(self, why: str) -> RecordingError:
        return RecordingError(
            f"recording {str(self.path)!r} ended early, after {self.events} events: {why}; "
            "the run went on unrecorded",
            file=str(self.path),
            events=self.events,
        )


class RecordingReader:
    """The events of a recording, in order; every iteration reads the file anew.

    Args:
        path: the file.
        cut: what a missing end (the writer was killed) does: `refuse` raises after the last whole line,
            `allow` ends the iteration there.
        codec: knows the kinds and the upcasters.

    Raises:
        RecordingError: no such file, or its first line is no header.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        cut: Literal["refuse", "allow"] = "refuse",
        codec: EventCodec = CODEC,
    ) -> None:
        self.path = Path(path)
        self._cut = cut
        self._codec = codec
        with self._open() as file:
            self.header = self._header(file.readline())

    def __iter__(self) -> Iterator[ExecutionEvent | Gap]:
        """Yield each event and gap.

        Raises:
            RecordingError: at the first line that is not one, after everything before it was yielded.
        """
        events = missed = 0
        number, line = 1, b""
        with self._open() as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    continue
                whole = line.endswith(b"\n")
                if whole and (end := _as(End, line)) is not None:
                    self._check_end(end, number, events, missed)
                    return
                if not whole:
                    break
                entry = self._entry(line, number)
                events, missed = _counted(entry, events, missed)
                yield entry
            else:
                number, line = number + 1, b""
        if self._cut == "refuse":
            what = f"line was cut, got {_shown(line)}" if line else "end line is missing"
            remedy = "the writer was killed; read it with cut='allow' to take what there is"
            raise self._wrong(number, f"{what}: {remedy}")

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as broken:
            raise RecordingError(
                f"cannot read recording {str(self.path)!r}: {broken.strerror}", file=str(self.path)
            ) from broken

    def _header(self, line: bytes) -> Header:
        header = _as(Header, line)
        if header is None:
            raise self._wrong(1, f"not the header of a recording, got {_shown(line)}; is it another file?")
        if header.format != FORMAT:
            raise self._wrong(
                1,
                f"recording of format {header.format!r}, known here is {FORMAT}; "
                f"read it with FlowRx {header.flowrx} or a newer one",
            )
        return header

    def _entry(self, line: bytes, number: int) -> ExecutionEvent | Gap:
        try:
            return self._codec.decode_json(line)
        except EventDecodeError as broken:
            raise self._wrong(number, broken.message) from broken

    def _check_end(self, end: End, number: int, events: int, missed: int) -> None:
        if (end.events, end.missed) != (events, missed):
            raise self._wrong(
                number,
                f"the end line counts {end.events} events and {end.missed} missed, the file has {events} and "
                f"{missed}; lines were removed or added",
            )

    def _wrong(self, line: int, what: str) -> RecordingError:
        return RecordingError(f"{self.path}:{line}: {what}", file=str(self.path), line=line)


def _new_file(path: Path) -> FileIO:
    try:
        return path.open("xb", buffering=0)
    except FileExistsError as broken:
        raise RecordingError(
            f"recording {str(path)!r} exists already; give another path, nothing is overwritten",
            file=str(path),
        ) from broken
    except OSError as broken:
        raise RecordingError(
            f"cannot make recording {str(path)!r}: {broken.strerror}", file=str(path)
        ) from broken


def _counted(entry: ExecutionEvent | Gap, events: int, missed: int) -> tuple[int, int]:
    return (events, missed + entry.missed) if isinstance(entry, Gap) else (events + 1, missed)


def _as(kind: type[H], line: bytes) -> H | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _shown(line: bytes, limit: int = 80) -> str:
    shown = repr(line[:limit])
    return shown if len(line) <= limit else f"{shown}..."
