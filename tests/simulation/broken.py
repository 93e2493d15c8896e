"""Deliberately broken engines: each patch takes one promise away; the simulation shows that it would notice.

Owns: `BROKEN`. Does not own: finding them (test_simulation).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from flowcore.frame import Frame, Opened
from flowcore.settlement import Ledger
from flowruntime.execute.task import SourceTask
from flowruntime.flowcontrol.letters import LetterWriter
from flowruntime.flowcontrol.writer import SinkWriter
from flowruntime.operators import join
from flowruntime.operators.batching import BatchingOperator
from flowruntime.operators.expand import ExpandOperator
from flowruntime.operators.family import Family
from flowruntime.operators.kernel import Kernel


@contextmanager
def a_leaf_is_never_counted() -> Generator[None]:
    """A row counts as settled while one leaf has yet to cover it."""
    real = Ledger.__init__

    def init(ledger: Ledger, size: int, leaves: int, *rest: Any) -> None:
        real(ledger, size, max(1, leaves - 1), *rest)

    with patch.object(Ledger, "__init__", init):
        yield


@contextmanager
def rows_settle_before_the_sink_has_them() -> Generator[None]:
    """A sink's rows are covered when they are queued, not when they are written."""
    real = SinkWriter.put

    def put(writer: SinkWriter, kernel: Kernel, frame: Frame[Any]) -> None:
        frame.opened.ledger.cover(frame.covers)
        opened = frame.opened
        copy = Opened(opened.scope, opened.seq, opened.size, parents=opened.parents, records=opened.records)
        copy.ledger = Ledger(opened.size, 1, lambda _ledger, _rows: None)
        real(writer, kernel, Frame(copy, frame.values, frame.rows, frame.covers, frame.failed))

    with patch.object(SinkWriter, "put", put):
        yield


@contextmanager
def a_failed_batch_loses_a_row() -> Generator[None]:
    """Of a batch with a failed row, the first row is never heard of again."""
    real = BatchingOperator.batch_finished

    def batch_finished(operator: BatchingOperator, batch: Any) -> None:
        results: list[Any] = batch.result or []
        if batch.error is not None or any(isinstance(result, Exception) for result in results):
            batch.members[0].done = True
        real(operator, batch)

    with patch.object(BatchingOperator, "batch_finished", batch_finished):
        yield


@contextmanager
def commits_go_one_row_too_far() -> Generator[None]:
    """The committed position is that of the row after the settled prefix."""
    real = SourceTask.position

    def position(task: SourceTask) -> Any:
        found = real(task)
        return None if found is None else min(found + 1, task.read)

    with patch.object(SourceTask, "position", position):
        yield


@contextmanager
def a_join_does_not_wait_for_its_last_input() -> Generator[None]:
    """A joined row leaves when one input has yet to cover it."""
    real = join._Cell.__init__

    def init(cell: Any, opened: Opened, missing: int, slots: int) -> None:
        real(cell, opened, max(1, missing - 1), slots)

    with patch.object(join._Cell, "__init__", init):
        yield


@contextmanager
def an_expansion_forgets_a_family() -> Generator[None]:
    """Every third parent is never covered, though its children are settled."""
    real, seen = Family.cover_parent, [0]

    def cover_parent(family: Family) -> None:
        seen[0] += family.closed
        if not family.closed or seen[0] % 3:
            real(family)

    with patch.object(Family, "cover_parent", cover_parent):
        yield


@contextmanager
def exceptions_of_sinks_are_swallowed() -> Generator[None]:
    """A write that raises counts as done."""
    real = SinkWriter.__init__

    def init(writer: SinkWriter, node_id: str, sink: Any) -> None:
        real(writer, node_id, sink)
        write = sink.write

        async def quietly(batch: Any) -> Mapping[int, Exception]:
            try:
                return await write(batch)
            except Exception:  # noqa: BLE001 - what is broken here
                return {}

        sink.write = quietly

    with patch.object(SinkWriter, "__init__", init):
        yield


@contextmanager
def a_failed_row_is_covered_as_dropped() -> Generator[None]:
    """A generator that breaks off counts as exhausted."""
    with patch.object(ExpandOperator, "note_failure", return_value=None):
        yield


@contextmanager
def rows_settle_before_their_letters_are_kept() -> Generator[None]:
    """A row that was given up on does not wait for its dead letter."""

    def nothing(ledger: Ledger, row: int) -> None:
        del ledger, row

    with patch.object(Ledger, "expect", nothing), patch.object(Ledger, "arrived", nothing):
        yield


@contextmanager
def letters_that_could_not_be_written_count_as_kept() -> Generator[None]:
    """The run goes on as if they were."""
    with patch.object(LetterWriter, "_stop", return_value=None):
        yield


@contextmanager
def a_letter_is_never_written() -> Generator[None]:
    """Every fifth failure has a letter nobody writes."""
    real, seen = LetterWriter.put, [0]

    def put(writer: LetterWriter, *args: Any, **kwargs: Any) -> None:
        seen[0] += 1
        if seen[0] % 5:
            real(writer, *args, **kwargs)

    with patch.object(LetterWriter, "put", put):
        yield


BROKEN: dict[str, Callable[[], Any]] = {
    broken.__name__: broken
    for broken in (
        a_leaf_is_never_counted,
        rows_settle_before_the_sink_has_them,
        a_failed_batch_loses_a_row,
        commits_go_one_row_too_far,
        a_join_does_not_wait_for_its_last_input,
        an_expansion_forgets_a_family,
        exceptions_of_sinks_are_swallowed,
        a_failed_row_is_covered_as_dropped,
        rows_settle_before_their_letters_are_kept,
        letters_that_could_not_be_written_count_as_kept,
        a_letter_is_never_written,
    )
}
