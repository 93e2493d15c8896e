"""What every source must do, as tests a connector's author inherits.

Owns: `SourceConformance`, `SourceSubject`.
Does not own: what is special about one source; its author tests that.

Always holds: the tests need no plugin, no network and no real waiting; whatever chance decides comes from
fixed seeds.

    class TestFilesSource(SourceConformance):
        @pytest.fixture
        def subject(self, tmp_path) -> SourceSubject:
            ...write a file...
            return SourceSubject(make=lambda: FilesSource(FilesSourceConfig(path=...)), rows=[...])
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from flowcore.connector import Assigned, Credit, Position, Reader, Rows, Source
from flowcore.context import SourceContext
from flowcore.errors import FlowError
from flowcore.health import Health, HealthCheck
from flowruntime.testing.contexts import StandaloneSourceContext

R = TypeVar("R")

_SEEDS = range(20)
_ENDLESS = 100_000
_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class SourceSubject:
    """A source under test and what it must give."""

    make: Callable[[], Source[Any, Any]]
    """A new source on the same data, each time it is called."""
    rows: Sequence[object]
    """What the partition gives from its beginning to its end; at least three rows."""
    partition: str | None = None
    """None: the first one assigned."""
    failing: frozenset[int] = field(default_factory=frozenset[int])
    """Which of `rows` fail; their value in `rows` is not compared."""
    resumable: bool = True
    """It gives positions and can begin at them."""
    context: Callable[[], SourceContext] = StandaloneSourceContext


class SourceConformance:
    """Inherit, and give a fixture `subject`."""

    def test_never_more_rows_than_credit_whatever_the_credits(self, subject: SourceSubject) -> None:
        """SRC-1."""
        for seed in _SEEDS:
            chance = random.Random(seed)
            _run(_read_all(subject, lambda chance=chance: Credit(rows=chance.choice([1, 2, 3, 7, 1000]))))

    def test_any_split_into_reads_gives_the_same_rows(self, subject: SourceSubject) -> None:
        """SRC-5."""
        for seed in _SEEDS:
            chance = random.Random(seed)
            read = _run(_read_all(subject, lambda chance=chance: Credit(rows=chance.randint(1, 9))))
            _assert_same(subject, read, 0)

    def test_credit_in_bytes_is_kept_but_one_row_always_passes(self, subject: SourceSubject) -> None:
        """SRC-1."""
        most = 40

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                while (rows := await opened.reader.read(Credit(rows=1000, max_bytes=most))) is not None:
                    assert len(rows) == 1 or rows.nbytes <= most

        _run(scenario())

    def test_a_read_waits_for_at_least_one_row(self, subject: SourceSubject) -> None:
        """SRC-2."""

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                while (rows := await opened.reader.read(Credit(rows=2))) is not None:
                    assert len(rows) >= 1, "an empty Rows says nothing; wait for a row or end with None"

        _run(scenario())

    def test_asked_for_its_health_it_answers_and_gives_the_same_rows(self, subject: SourceSubject) -> None:
        """HLT-1, HLT-2, HLT-3; a source that cannot be asked is none of these rules' business."""

        async def scenario() -> list[object]:
            read: list[object] = []
            async with _Opened(subject) as opened:
                while (rows := await opened.reader.read(Credit(rows=2))) is not None:
                    for asked in (subject.make(), opened.source):
                        if isinstance(asked, HealthCheck):
                            health = await asked.health(subject.context())
                            assert isinstance(health, Health)
                            assert health.detail, "say what was found, and what to do"
                    read += rows.values
            return read

        assert len(_run(scenario())) == len(subject.rows)

    def test_a_read_without_credit_is_refused(self, subject: SourceSubject) -> None:
        """SRC-1."""

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                await _assert_refused(opened.reader.read(Credit(rows=0)))

        _run(scenario())

    def test_after_the_end_every_read_says_the_end_again(self, subject: SourceSubject) -> None:
        """SRC-3."""

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                await _drain(opened.reader, lambda: Credit(rows=100))
                assert await opened.reader.read(Credit(rows=1)) is None
                assert await opened.reader.read(Credit(rows=100)) is None

        _run(scenario())

    def test_columns_have_one_entry_per_row_and_errors_point_into_the_rows(
        self, subject: SourceSubject
    ) -> None:
        """SRC-9, SRC-13."""
        for rows in _run(_read_all(subject, lambda: Credit(rows=3))):
            for column in (rows.keys, rows.times, rows.headers, rows.positions):
                assert column is None or len(column) == len(rows)
            for index, error in (rows.errors or {}).items():
                assert 0 <= index < len(rows)
                assert isinstance(error, FlowError)
            if rows.positions is not None:
                assert rows.positions[-1] == rows.next
            assert all(time.tzinfo is not None for time in rows.times or ())

    def test_a_cancelled_read_loses_nothing(self, subject: SourceSubject) -> None:
        """SRC-10."""

        async def scenario(seed: int) -> list[Rows[Any]]:
            chance = random.Random(seed)
            read: list[Rows[Any]] = []
            async with _Opened(subject) as opened:
                while True:
                    attempt = asyncio.ensure_future(opened.reader.read(Credit(rows=2)))
                    for _ in range(chance.randint(0, 3)):
                        await asyncio.sleep(0)
                    attempt.cancel()
                    try:
                        rows = await attempt
                    except asyncio.CancelledError:
                        rows = await opened.reader.read(Credit(rows=2))
                    if rows is None:
                        return read
                    read.append(rows)

        for seed in _SEEDS:
            _assert_same(subject, _run(scenario(seed)), 0)

    def test_resuming_at_any_position_loses_nothing_and_repeats_nothing(self, subject: SourceSubject) -> None:
        """SRC-6, SRC-7."""
        if not subject.resumable:
            return
        for size in (1, 3):
            done = 0
            for rows in _run(_read_all(subject, lambda size=size: Credit(rows=size))):
                assert rows.next is not None, "a resumable source gives positions"
                for offset, position in enumerate(rows.positions or ()):
                    _assert_resumes(subject, position, done + offset + 1)
                done += len(rows)
                _assert_resumes(subject, rows.next, done)

    def test_where_it_begins_can_be_kept_and_opened(self, subject: SourceSubject) -> None:
        """SRC-16."""

        async def beginning() -> Position | None:
            ctx = subject.context()
            source = subject.make()
            partition = subject.partition or (await anext(aiter(source.assignments(ctx)))).partition
            position = await source.begin(partition, ctx)
            await source.shutdown()
            return position

        position = _run(beginning())
        if position is not None:
            assert json.loads(json.dumps(position)) == position
            _assert_resumes(subject, position, 0)

    def test_positions_survive_a_store(self, subject: SourceSubject) -> None:
        """SRC-6."""
        if not subject.resumable:
            return
        for rows in _run(_read_all(subject, lambda: Credit(rows=2))):
            for position in (rows.next, *(rows.positions or ())):
                assert json.loads(json.dumps(position)) == position

    def test_commit_is_idempotent_and_moves_on(self, subject: SourceSubject) -> None:
        """SRC-8."""

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                while (rows := await opened.reader.read(Credit(rows=2))) is not None:
                    if rows.next is not None:
                        for position in (*(rows.positions or ()), rows.next, rows.next):
                            await opened.reader.commit(position)

        _run(scenario())

    def test_close_is_idempotent_and_a_closed_reader_refuses(self, subject: SourceSubject) -> None:
        """SRC-15, ALL-12."""

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                await opened.reader.read(Credit(rows=1))
                await opened.reader.close()
                await opened.reader.close()
                await _assert_refused(opened.reader.read(Credit(rows=1)))

        _run(scenario())

    def test_close_after_a_cancelled_read_leaves_nothing_running(self, subject: SourceSubject) -> None:
        """ALL-8."""

        async def scenario() -> None:
            async with _Opened(subject) as opened:
                attempt = asyncio.ensure_future(opened.reader.read(Credit(rows=1)))
                await asyncio.sleep(0)
                attempt.cancel()
                await asyncio.gather(attempt, return_exceptions=True)
                await opened.reader.close()
                assert asyncio.all_tasks() == {asyncio.current_task()}

        _run(scenario())

    def test_static_partitions_are_assigned_once(self, subject: SourceSubject) -> None:
        async def scenario() -> None:
            source = subject.make()
            assigned = [change async for change in source.assignments(subject.context())]
            names = [change.partition for change in assigned]
            assert all(isinstance(change, Assigned) for change in assigned)
            assert len(names) == len(set(names)) >= 1
            await source.shutdown()

        _run(scenario())


class _Opened:
    """A source with one open reader, closed and shut down at the end."""

    reader: Reader[Any]

    def __init__(self, subject: SourceSubject, resume: Position | None = None) -> None:
        self._subject = subject
        self._resume = resume
        self.source = subject.make()

    async def __aenter__(self) -> Self:
        ctx = self._subject.context()
        partition = self._subject.partition
        if partition is None:
            partition = (await anext(aiter(self.source.assignments(ctx)))).partition
        self.reader = await self.source.open(partition, self._resume, ctx)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reader.close()
        await self.source.shutdown()


async def _read_all(
    subject: SourceSubject, credit: Callable[[], Credit], resume: Position | None = None
) -> list[Rows[Any]]:
    async with _Opened(subject, resume) as opened:
        return await _drain(opened.reader, credit)


async def _drain(reader: Reader[Any], credit: Callable[[], Credit]) -> list[Rows[Any]]:
    read: list[Rows[Any]] = []
    for _ in range(_ENDLESS):
        given = credit()
        rows = await reader.read(given)
        if rows is None:
            return read
        assert len(rows) <= given.rows, f"{len(rows)} rows for {given!r}"
        read.append(rows)
    raise AssertionError(f"the source did not end after {_ENDLESS} reads; give it an end for this test")


def _assert_resumes(subject: SourceSubject, position: Position, done: int) -> None:
    stored = json.loads(json.dumps(position))
    _assert_same(subject, _run(_read_all(subject, lambda: Credit(rows=100), stored)), done)


def _assert_same(subject: SourceSubject, read: Sequence[Rows[Any]], done: int) -> None:
    values = [value for rows in read for value in rows.values]
    expected = list(subject.rows)[done:]
    assert len(values) == len(expected), (
        f"{len(values)} rows after row {done}, expected {len(expected)}: {values!r}"
    )
    failing = {at for at, _ in _errors(read)}
    assert failing == {index - done for index in subject.failing if index >= done}
    for index, (value, wanted) in enumerate(zip(values, expected, strict=True)):
        assert index in failing or value == wanted, f"row {done + index} is {value!r}, expected {wanted!r}"


def _errors(read: Sequence[Rows[Any]]) -> list[tuple[int, Exception]]:
    found: list[tuple[int, Exception]] = []
    done = 0
    for rows in read:
        found.extend((done + index, error) for index, error in (rows.errors or {}).items())
        done += len(rows)
    return found


async def _assert_refused(attempt: Awaitable[object]) -> None:
    try:
        await attempt
    except FlowError:
        return
    raise AssertionError("the reader gave rows instead of an error of ours")


def _run(scenario: Awaitable[R]) -> R:
    async def bounded() -> R:
        async with asyncio.timeout(_TIMEOUT_S):
            return await scenario

    return asyncio.run(bounded())
