"""What every sink must do, as tests a connector's author inherits.

Owns: `SinkConformance`, `SinkSubject`.
Does not own: what is special about one sink; its author tests that.

Always holds: the tests need no plugin, no network and no real waiting.

    class TestFilesSink(SinkConformance):
        @pytest.fixture
        def subject(self, tmp_path) -> SinkSubject:
            path = tmp_path / "out.jsonl"
            return SinkSubject(
                make=lambda: FilesSink(FilesSinkConfig(path=str(path))),
                stored=lambda: read_back(path), good=[{"a": 1}, {"a": 2}, {"a": 3}], bad=[math.nan],
            )
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flowcore.connector import Rows, Sink
from flowcore.context import SinkContext
from flowcore.errors import FlowError
from flowcore.health import Health, HealthCheck
from flowruntime.testing.contexts import StandaloneSinkContext

R = TypeVar("R")
_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class SinkSubject:
    """A sink under test and how to see what the outside system holds."""

    make: Callable[[], Sink[Any, Any]]
    """A new sink on the same place, each time it is called."""
    stored: Callable[[], Sequence[object]]
    """The rows that the outside system shows now, in order."""
    good: Sequence[object]
    """Rows it takes; at least three."""
    bad: Sequence[object] = ()
    """Rows it must refuse one by one; empty when it takes everything."""
    context: Callable[[], SinkContext] = StandaloneSinkContext
    once: bool = False
    """A row that is there already is not written a second time: the outside system knows it again."""


class SinkConformance:
    """Inherit, and give a fixture `subject`."""

    def test_rows_are_durable_when_the_sink_says_so(self, subject: SinkSubject) -> None:
        """SNK-1, SNK-3, SNK-8."""

        async def scenario() -> None:
            async with _Opened(subject) as sink:
                written: list[object] = []
                for row in subject.good:
                    assert not await sink.write(Rows([row]))
                    written.append(row)
                    _assert_stored(subject, written if sink.settles == "on_write" else [])
                assert not await sink.write(Rows(list(subject.good)))
                await sink.finish()
                _assert_stored(subject, [*written, *subject.good])
            _assert_stored(subject, [*written, *subject.good])

        _run(scenario())

    def test_a_sink_that_settles_at_the_end_shows_nothing_when_it_is_cut_short(
        self, subject: SinkSubject
    ) -> None:
        """SNK-6."""

        async def scenario() -> None:
            async with _Opened(subject) as sink:
                await sink.write(Rows(list(subject.good)))
                at_end = sink.settles == "at_end"
            _assert_stored(subject, [] if at_end else subject.good)

        _run(scenario())

    def test_failed_rows_are_named_by_index_and_the_others_are_written(self, subject: SinkSubject) -> None:
        """SNK-2, SNK-4, SNK-7."""

        async def scenario() -> None:
            for bad in subject.bad:
                before = list(subject.stored())
                async with _Opened(subject) as sink:
                    first, *others = subject.good
                    failed = await sink.write(Rows([first, bad, *others, bad]))
                    assert set(failed) == {1, len(others) + 2}
                    assert all(isinstance(error, FlowError) for error in failed.values())
                    await sink.finish()
                kept = before if sink.settles == "on_write" else []
                _assert_stored(subject, [*kept, *subject.good])

        _run(scenario())

    def test_a_batch_of_failing_rows_only_writes_nothing(self, subject: SinkSubject) -> None:
        """SNK-2."""

        async def scenario() -> None:
            if not subject.bad:
                return
            async with _Opened(subject) as sink:
                failed = await sink.write(Rows(list(subject.bad)))
                assert set(failed) == set(range(len(subject.bad)))
                await sink.finish()
            _assert_stored(subject, [])

        _run(scenario())

    def test_an_empty_batch_is_no_failure(self, subject: SinkSubject) -> None:
        async def scenario() -> None:
            async with _Opened(subject) as sink:
                assert not await sink.write(Rows([]))
                await sink.finish()
            _assert_stored(subject, [])

        _run(scenario())

    def test_a_batch_written_again_repeats_rows_and_damages_none(self, subject: SinkSubject) -> None:
        """SNK-5."""

        async def scenario() -> None:
            before = list(subject.stored())
            good = list(subject.good)
            async with _Opened(subject) as sink:
                for _ in range(2):
                    assert not await sink.write(Rows(good))
                await sink.finish()
            added = list(subject.stored())[len(before) :]
            assert added in ([*good, *good], good), f"written twice: {good!r}; there is {added!r}"

        _run(scenario())

    def test_a_cancelled_write_leaves_whole_rows_in_order(self, subject: SinkSubject) -> None:
        """Which rows of the cancelled write arrive is unknown; the ones before and after must be there."""

        async def scenario() -> None:
            first, second, third = list(subject.good)[:3]
            async with _Opened(subject) as sink:
                await sink.write(Rows([first]))
                attempt = asyncio.ensure_future(sink.write(Rows([second])))
                await asyncio.sleep(0)
                attempt.cancel()
                await asyncio.gather(attempt, return_exceptions=True)
                assert not await sink.write(Rows([third]))
                await sink.finish()
            assert list(subject.stored()) in ([first, third], [first, second, third])

        _run(scenario())

    def test_asked_for_its_health_it_answers_and_changes_nothing(self, subject: SinkSubject) -> None:
        """HLT-1, HLT-2, HLT-3; a sink that cannot be asked is none of these rules' business."""

        async def scenario() -> None:
            async with _Opened(subject) as sink:
                for asked in (subject.make(), sink):
                    if isinstance(asked, HealthCheck):
                        health = await asked.health(subject.context())
                        assert isinstance(health, Health)
                        assert health.detail, "say what was found, and what to do"
                assert not await sink.write(Rows(list(subject.good)))
                await sink.finish()
            _assert_stored(subject, subject.good)

        _run(scenario())

    def test_writing_after_close_is_refused(self, subject: SinkSubject) -> None:
        """SNK-9."""

        async def scenario() -> None:
            sink = subject.make()
            await sink.open(subject.context())
            await sink.write(Rows([subject.good[0]]))
            await sink.close()
            before = list(subject.stored())
            try:
                await sink.write(Rows([subject.good[1]]))
            except FlowError:
                assert list(subject.stored()) == before
                return
            raise AssertionError("a closed sink took a row instead of raising an error of ours")

        _run(scenario())

    def test_close_is_idempotent_also_unopened_and_leaves_nothing_running(self, subject: SinkSubject) -> None:
        """ALL-8, ALL-12."""

        async def scenario() -> None:
            await subject.make().close()
            sink = subject.make()
            await sink.open(subject.context())
            await sink.close()
            await sink.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        _run(scenario())


class _Opened:
    def __init__(self, subject: SinkSubject) -> None:
        self._subject = subject
        self._sink = subject.make()

    async def __aenter__(self) -> Sink[Any, Any]:
        await self._sink.open(self._subject.context())
        return self._sink

    async def __aexit__(self, *_: object) -> None:
        await self._sink.close()


def _assert_stored(subject: SinkSubject, expected: Sequence[object]) -> None:
    wanted: list[object] = []
    for row in expected:
        if not subject.once or row not in wanted:
            wanted.append(row)
    assert list(subject.stored()) == wanted


def _run(scenario: Awaitable[R]) -> R:
    async def bounded() -> R:
        async with asyncio.timeout(_TIMEOUT_S):
            return await scenario

    return asyncio.run(bounded())
