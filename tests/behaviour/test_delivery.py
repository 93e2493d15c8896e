"""Positions: committed after settlement only; a crash repeats at most the window and loses nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import Workflow, node
from flowruntime.testing.contexts import StandaloneSourceContext
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual, wait


def line(*nodes: Any, **settings: Any) -> Workflow:
    wf = Workflow("line", settings=settings)
    wf.chain(wf.add(Script, id="s"), *(wf.add(thing, id=f"n{index}") for index, thing in enumerate(nodes)))
    return wf


async def never() -> None:
    await asyncio.Event().wait()


@node("del.held")
async def never_for_one(value: float) -> float:
    if value == 1.0:
        await never()
    return value


@virtual
async def test_a_position_is_committed_only_when_every_row_before_it_is_settled() -> None:
    """Row 1 takes 10 s, the others 1 s: until 10 s nothing may be committed."""
    source = Script([[10.0, 1.0, 1.0, 1.0], never])
    wf = Workflow("prefix")
    wf.chain(wf.add(Script, id="s"), wf.add(wait, id="w", concurrency={"max": 8, "order": "unordered"}))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(9.5)
        assert source.committed["0"] == []
        await asyncio.sleep(2)
        assert source.committed["0"] == [4]
        await run.drain()


@virtual
async def test_rows_are_committed_once_a_second_while_the_run_goes_on() -> None:
    source = Script([[0.4] for _ in range(10)] + [never])
    wf = Workflow("regular", settings={"commit_interval": "1s"})
    wf.chain(wf.add(Script, id="s"), wf.add(wait, id="w", concurrency=1))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(4.5)
        await run.cancel()
    assert source.committed["0"] == [2, 4, 7, 9, 10] or source.committed["0"][:3] == [2, 4, 7]
    assert source.committed["0"] == sorted(set(source.committed["0"]))


@virtual
async def test_no_more_is_read_beyond_the_committed_position_than_may_come_again(tmp_path: Path) -> None:
    """And a commit is made when half of that is settled, however long the interval is."""
    beyond: list[int] = []
    source = Script([[value] * 4 for value in range(25)])

    def look(batch: Any) -> None:
        del batch
        beyond.append(source.handed_over - max(source.committed["0"], default=0))

    wf = Workflow("window", settings={"max_redelivery": 10, "commit_interval": "1h", "max_in_flight": 1_000})
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="n"), wf.add(kept(look), id="k"))
    async with runtime(state_dir=str(tmp_path)) as rt:
        run = await rt.start(wf, sources={"s": source})
        result = await run.wait()
    assert result.records == 100
    assert max(beyond) <= 10
    assert now() < 60


@pytest.mark.parametrize("crash_after", [0.5, 1.5, 3.2])
@virtual
async def test_a_run_resumed_after_a_cut_repeats_at_most_the_window_and_loses_nothing(
    crash_after: float, tmp_path: Path
) -> None:
    sink = kept()
    rows = [[n * 10 + k for k in range(10)] for n in range(20)]

    @node("del.work")
    async def work(value: int) -> int:
        await asyncio.sleep(0.1)
        return value

    wf = Workflow("resume", settings={"max_redelivery": 30, "max_in_flight": 10, "commit_interval": "500ms"})
    wf.chain(wf.add(Script, id="s"), wf.add(work, id="w", concurrency=4), wf.add(sink, id="k"))
    async with runtime(state_dir=str(tmp_path)) as rt:
        run = await rt.start(wf, sources={"s": Script(rows)})
        await asyncio.sleep(crash_after)
        await run.cancel("crash")
        first = list(sink.rows)
        result = await (await rt.start(wf, sources={"s": Script(rows)})).wait()
    assert result.ok
    assert sorted(set(sink.rows)) == list(range(200))
    repeated = [value for value in sink.rows[len(first) :] if value in first]
    assert len(repeated) <= 30


@virtual
async def test_a_fresh_start_forgets_committed_positions(tmp_path: Path) -> None:
    sink = kept()
    async with runtime(state_dir=str(tmp_path)) as rt:
        for fresh, expected in ((False, [1, 2]), (False, []), (True, [1, 2])):
            sink.rows.clear()
            await (await rt.start(line(same, sink), sources={"s": Script([[1, 2]])}, fresh=fresh)).wait()
            assert sink.rows == expected


@virtual
async def test_where_a_source_begins_is_kept_before_anything_is_read_of_it(tmp_path: Path) -> None:
    """So a crash before the first commit resumes there, though the source would begin elsewhere by now."""

    class Moving(Script, type="test.moving"):
        begins = 0
        asked = 0

        async def begin(self, partition: str, ctx: Any) -> int:
            Moving.asked += 1
            return Moving.begins

    sink = kept()
    async with runtime(state_dir=str(tmp_path)) as rt:
        run = await rt.start(line(never_for_one, sink), sources={"s": Moving([[1.0, 2.0], never])})
        await asyncio.sleep(0.1)
        await run.cancel("crash before the first commit")
        Moving.begins = 2
        for fresh, expected in ((False, [1.0, 2.0]), (False, []), (True, [])):
            sink.rows.clear()
            source = Moving([[1.0, 2.0]])
            await (await rt.start(line(same, sink), sources={"s": source}, fresh=fresh)).wait()
            assert sink.rows == expected
    assert Moving.asked == 2


@virtual
async def test_no_more_rows_are_read_beyond_the_committed_position_than_may_come_again() -> None:
    """Row 1 never ends; everything else is done at once, and still only 50 rows are read."""

    @node("del.stuck")
    async def stuck(value: int) -> int:
        if value == 0:
            await asyncio.Event().wait()
        return value

    source = Script([list(range(1000))])
    wf = Workflow("window", settings={"max_redelivery": 50})
    wf.chain(wf.add(Script, id="s"), wf.add(stuck, id="n", concurrency={"max": 8, "order": "unordered"}))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(10)
        assert source.handed_over == 50
        result = await run.stop(timedelta(seconds=1))
    assert result.abandoned == 1
    assert source.committed["0"] == []


@virtual
async def test_at_most_once_commits_before_the_rows_are_worked_on() -> None:
    source = Script([[1.0, 2.0], never])
    async with runtime() as rt:
        run = await rt.start(line(wait, delivery="at_most_once"), sources={"s": source})
        await asyncio.sleep(0.1)
        assert source.committed["0"] == [2]
        await run.cancel()
    assert source.committed["0"] == [2]


@virtual
async def test_a_commit_that_fails_fails_the_run() -> None:
    source = Script([[1.0], never])

    async def refuse(self: Any, position: Any) -> None:
        raise OSError("broker away")

    reader_type = type(await source.open("0", None, StandaloneSourceContext()))
    original = reader_type.commit
    reader_type.commit = refuse
    try:
        async with runtime() as rt:
            result = await (await rt.start(line(wait), sources={"s": source})).wait()
    finally:
        reader_type.commit = original
    assert result.state.name == "failed"
    assert "broker away" in str(result.cause)
    assert now() <= 3.0
