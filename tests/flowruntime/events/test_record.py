"""Recordings: whole, cut, garbled, on a failing disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from flowcore.events import ExecutionEvent, Gap, NodeStarted, WorkflowPaused
from flowruntime.events.bus import EventBus
from flowruntime.events.record import Recording, RecordingError, RecordingReader
from flowruntime.telemetry.facts import Fact


def started(node: str = "a") -> NodeStarted:
    return NodeStarted(workflow_id="w", node=node, started_at=0.0)


def recording(bus: EventBus, path: Path, **options: object) -> Recording:
    return Recording(bus, path, workflow="triage", flowrx="0.1.0", started_at=1.0, **options)  # type: ignore[arg-type]


async def made(path: Path, count: int = 3) -> list[ExecutionEvent]:
    bus, seen = EventBus(clock=lambda: 2.0), list[ExecutionEvent]()
    bus.listen(seen.append)
    async with recording(bus, path):
        for number in range(count):
            bus.publish(started(str(number)))
    return seen


async def test_what_was_published_while_recording_is_read_back_equal(tmp_path: Path) -> None:
    seen = await made(tmp_path / "run.jsonl")
    reader = RecordingReader(tmp_path / "run.jsonl")
    assert list(reader) == seen
    assert list(reader) == seen
    assert (reader.header.workflow, reader.header.since) == ("triage", 0)


async def test_a_recording_ends_with_the_bus(tmp_path: Path) -> None:
    bus = EventBus()
    writing = recording(bus, tmp_path / "run.jsonl", kinds={WorkflowPaused})
    bus.publish(started())
    bus.publish(WorkflowPaused(workflow_id="w", reason="asked"))
    await bus.aclose()
    await writing.aclose()
    assert [type(event) for event in RecordingReader(tmp_path / "run.jsonl")] == [WorkflowPaused]


async def test_a_publisher_that_asks_ready_has_every_event_on_disk(tmp_path: Path) -> None:
    bus = EventBus()
    async with recording(bus, tmp_path / "run.jsonl", buffer=8) as writing:
        for number in range(200):
            await bus.ready()
            bus.publish(started(str(number)))
    assert (writing.events, writing.missed) == (200, 0)


async def test_a_publisher_that_does_not_wait_leaves_counted_gaps(tmp_path: Path) -> None:
    bus = EventBus()
    async with recording(bus, tmp_path / "run.jsonl", buffer=8, policy="drop_oldest"):
        for _ in range(100):
            bus.publish(started())
    entries = list(RecordingReader(tmp_path / "run.jsonl"))
    assert entries[0] == Gap(missed=92, first_seq=1, last_seq=92)
    assert len(entries) == 9


async def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("mine")
    with pytest.raises(RecordingError, match="exists already; give another path"):
        recording(EventBus(), path)
    assert path.read_text() == "mine"


async def test_a_full_disk_ends_the_recording_not_the_run(tmp_path: Path) -> None:
    facts, seen = list[Fact](), list[ExecutionEvent]()
    bus = EventBus(report=facts.append)
    bus.listen(seen.append)
    writing = recording(bus, tmp_path / "run.jsonl")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writing._file.fileno())
    os.close(full)
    for _ in range(2000):
        await bus.ready()
        bus.publish(started())
        await asyncio.sleep(0)
    with pytest.raises(RecordingError, match=r"No space left on device; the run went on unrecorded"):
        await writing.aclose()
    assert len(seen) == 2000


async def test_a_cut_recording_is_read_up_to_the_cut_and_then_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    seen = await made(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    read = list[object]()
    with pytest.raises(RecordingError, match=r"run\.jsonl:4: line was cut, got b'\{.*cut='allow'"):
        read.extend(RecordingReader(path))
    assert list(RecordingReader(path, cut="allow")) == seen[:2]


async def test_a_recording_without_its_end_line_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    seen = await made(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(RecordingError, match=r"run\.jsonl:5: end line is missing"):
        list(RecordingReader(path))
    assert list(RecordingReader(path, cut="allow")) == seen


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\x00\xff\n", r":3: not an event: .*got b'\\x00\\xff"),
        (b"\n", r":3: not an event"),
        (b'{"kind":"Nope"}\n', r":3: unknown kind of event 'Nope'"),
        (b'{"kind":"NodeStarted","version":99}\n', r":3: NodeStarted has version 99"),
        (b"", r":5: the end line counts 3 events"),
    ],
)
async def test_a_garbled_line_is_named_with_file_line_and_value(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "run.jsonl"
    await made(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = line
    path.write_bytes(b"".join(lines))
    message = message.replace(":5:", ":4:") if not line else message
    with pytest.raises(RecordingError, match=message):
        list(RecordingReader(path))


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.txt"
    with pytest.raises(RecordingError, match=r"cannot read recording .*No such file"):
        RecordingReader(path)
    path.write_text("hello\n")
    with pytest.raises(RecordingError, match=r"other\.txt:1: not the header of a recording, got b'hello"):
        RecordingReader(path)
    path.write_text(
        '{"kind":"RecordingStarted","format":9,"flowrx":"3.0","workflow":"w","started_at":1,"since":0}\n'
    )
    with pytest.raises(RecordingError, match=r"format 9, known here is 1; read it with FlowRx 3\.0"):
        RecordingReader(path)
