"""A row that is given up on has a letter, and is settled when that is kept: not earlier, never without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import Batch, NodeFailed, RecordDeadLettered, RetryPolicy, Workflow, node, operator
from flowcore.connector import Credit, Position, Reader, Rows
from flowcore.context import NodeContext, SourceContext
from flowcore.dead_letters import DeadLetter
from flowcore.errors import DeadLetterError, FieldMissingError, NodeTimeoutError, SourceError
from flowcore.frame import Record
from flowcore.plain import from_plain
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import DEAD_LETTER, Script, graveyard, kept, later, runtime, same, virtual
from tests.connectors.files.test_files_sink import file_size_limit


@node("dead.odd")
def refuse_odd(value: int) -> int:
    """Fails on odd numbers."""
    if value % 2:
        raise ValueError(f"odd {value}")
    return value


def line(*nodes: Any, **settings: Any) -> Workflow:
    """A source, the nodes, a sink."""
    wf = Workflow("line", settings=DEAD_LETTER | settings)
    wf.chain(wf.add(Script, id="s"), *nodes_of(wf, nodes), wf.add(kept(), id="k"))
    return wf


def nodes_of(wf: Workflow, nodes: Sequence[Any]) -> list[Any]:
    return [wf.add(each, id=f"n{index}") for index, each in enumerate(nodes)]


async def ran(
    wf: Workflow, reads: Any, letters: CollectedLetters | None = None
) -> tuple[Any, list[DeadLetter]]:
    """The result of a run over these reads, and the letters."""
    collected = letters or CollectedLetters()
    source = Script(reads)
    async with runtime(nodes=[graveyard(collected)]) as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    return result, collected.letters


class Changed(Script):
    """A script whose rows are changed before they are handed over: errors and columns, as systems give."""

    def __init__(self, reads: Any, change: Callable[[Rows[Any]], None]) -> None:
        super().__init__(reads)
        self.change = change

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[Any]:
        return ChangedReader(await super().open(partition, resume, ctx), self.change)


class ChangedReader:
    def __init__(self, reader: Reader[Any], change: Callable[[Rows[Any]], None]) -> None:
        self._reader = reader
        self._change = change
        self.commit = reader.commit
        self.close = reader.close

    async def read(self, credit: Credit) -> Rows[Any] | None:
        rows = await self._reader.read(credit)
        if rows is not None:
            self._change(rows)
        return rows


# --- every way to fail ------------------------------------------------------------------------------------


@node("dead.later")
async def refuse_odd_later(value: int) -> int:
    """Fails on odd numbers, one turn later."""
    await asyncio.sleep(0)
    return refuse_odd(value)


@node("dead.batch", batch=Batch(max_items=4))
async def refuse_odd_of_batch(values: Sequence[int]) -> Sequence[int | Exception]:
    """Names the odd numbers of a batch."""
    return [ValueError(f"odd {value}") if value % 2 else value for value in values]


@node("dead.expand")
def expand_even(value: int) -> Iterator[int]:
    """Yields once, then fails on odd numbers."""
    yield value
    if value % 2:
        raise ValueError(f"odd {value}")


@node("dead.thread", offload="thread")
def refuse_odd_elsewhere(value: int) -> int:
    """Fails on odd numbers, in a thread."""
    return refuse_odd(value)


@operator("dead.operator", settles="explicit")
def quiet_on_odd() -> Callable[[Any], Any]:
    """Does not answer for odd numbers."""
    import reactivex.operators as ops

    def answers(record: Record[int]) -> bool:
        return record.value % 2 == 0

    return ops.filter(answers)


@virtual
async def test_a_function_a_coroutine_a_batch_a_generator_and_a_thread_give_the_same_letters() -> None:
    for failing in (refuse_odd, refuse_odd_later, refuse_odd_of_batch, expand_even, refuse_odd_elsewhere):
        result, letters = await ran(line(failing), [[1, 2], [3, 4]])
        what = failing.__name__
        assert (result.state.name, result.handled, result.dead_letters) == ("partial", True, 2), what
        assert (result.counts["n0"].failed, result.counts["n0"].handled) == (2, 2), what
        assert result.counts["n0"].dead_lettered == 2, what
        assert [letter.record for letter in letters] == [1, 3], what
        assert [letter.value for letter in letters] == [1, 3], what
        assert [letter.error.message for letter in letters] == ["odd 1", "odd 3"], what
        assert {letter.node for letter in letters} == {"n0"}, what
        assert [letter.origin.position for letter in letters] == [1, 3], what
        assert [letter.origin.index for letter in letters] == [0, 2], what
        assert {(letter.origin.source, letter.origin.partition) for letter in letters} == {("s", "0")}, what


@virtual
async def test_a_row_an_operator_does_not_answer_for_has_a_letter() -> None:
    wf = Workflow("quiet", settings=DEAD_LETTER)
    quiet = wf.add(quiet_on_odd, id="n0", timeout=timedelta(seconds=1))
    wf.chain(wf.add(Script, id="s"), quiet, wf.add(kept(), id="k"))
    result, letters = await ran(wf, [[1, 2], [3]])
    assert result.handled
    assert sorted((letter.record, letter.value) for letter in letters) == [(1, 1), (3, 3)]


@virtual
async def test_a_function_in_the_middle_of_a_fused_stage_tells_what_it_was_given() -> None:
    @node("dead.plus")
    def plus(value: int) -> int:
        return value + 10

    @node("dead.two", kind="filter")
    def over_ten(value: int) -> bool:
        if value == 13:
            raise KeyError("thirteen")
        return value > 10

    result, letters = await ran(line(plus, over_ten, refuse_odd), [[1, 2, 3], [4]])
    assert [(letter.node, letter.record, letter.value) for letter in letters] == [
        ("n2", 1, 11),
        ("n1", 3, 13),
    ]
    assert result.counts["k"].completed == 2


@virtual
async def test_a_node_of_several_ports_tells_each_of_them_by_name() -> None:
    @node("dead.divide")
    def divide(above: int, below: int) -> float:
        return above / below

    @node("dead.divide_later")
    async def divide_later(above: int, below: int) -> float:
        await asyncio.sleep(0)
        return above / below

    for dividing in (divide, divide_later):
        wf = Workflow("two", settings=DEAD_LETTER)
        source, slow = wf.add(Script, id="s"), wf.add(later, id="slow")
        quotient = wf.add(dividing, id="d")
        wf.connect(source, slow["value"])
        wf.connect(slow, quotient["above"])
        wf.connect(source, quotient["below"])
        wf.chain(quotient, wf.add(kept(), id="k"))
        _, letters = await ran(wf, [[0, 1]])
        assert [(letter.node, letter.value) for letter in letters] == [("d", {"above": 0, "below": 0})]


@virtual
async def test_a_condition_and_a_path_that_fail_on_a_connection_give_letters_of_the_receiving_node() -> None:
    wf = Workflow("edges", settings=DEAD_LETTER)
    source = wf.add(Script, id="s")
    named, big = wf.add(same, id="named"), wf.add(same, id="big")
    wf.connect(source["out.name"], named["value"])
    wf.connect(source, big["value"], when="value.size > 10")
    wf.chain(named, wf.add(kept(name="test.one"), id="k1"))
    wf.chain(big, wf.add(kept(name="test.two"), id="k2"))
    _, letters = await ran(wf, [[{"name": "a", "size": 11}, {"size": 12}, {"name": "c", "size": "x"}]])
    found = [(letter.node, letter.record, letter.value, letter.error.kind) for letter in letters]
    assert found == [
        ("named", {"size": 12}, {"size": 12}, FieldMissingError.__name__),
        ("big", {"name": "c", "size": "x"}, {"name": "c", "size": "x"}, "ExpressionEvaluationError"),
    ]
    assert letters[0].execution_id != letters[1].execution_id


@virtual
async def test_input_that_cannot_be_decoded_has_a_letter_with_the_raw_input() -> None:
    def spoil(rows: Rows[Any]) -> None:
        wrong = [index for index, value in enumerate(rows.values) if isinstance(value, bytes)]
        rows.errors = {index: SourceError(f"line {index} is no JSON") for index in wrong}

    letters = CollectedLetters()
    source = Changed([[b"{broken", 2], [4]], spoil)
    async with runtime(nodes=[graveyard(letters)]) as rt:
        result = await (await rt.start(line(same), sources={"s": source})).wait()
    (letter,) = letters.letters
    assert (letter.node, letter.undecoded, from_plain(letter.record)) == ("s", True, b"{broken")
    assert letter.error.message == "line 0 is no JSON"
    assert (result.handled, result.counts["k"].completed, result.counts["s"].dead_lettered) == (True, 2, 1)
    assert source.committed["0"][-1] == 3


@virtual
async def test_rows_a_sink_refuses_and_rows_of_a_write_that_fails_have_letters() -> None:
    calls = 0

    def write(batch: Any) -> dict[int, Exception]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("gone")
        return {index: ValueError(f"odd {v}") for index, v in enumerate(batch.values) if v % 2}

    async def turn() -> None:
        await asyncio.sleep(1)

    wf = Workflow("sink", settings=DEAD_LETTER)
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="n"), wf.add(kept(write), id="k"))
    result, letters = await ran(wf, [[1, 2], turn, [4, 6], turn, [8]])
    found = [(letter.node, letter.record, letter.value, letter.error.message) for letter in letters]
    assert found == [("k", 1, 1, "odd 1"), ("k", 4, 4, "gone"), ("k", 6, 6, "gone")]
    assert result.handled


@virtual
async def test_what_collects_and_what_makes_batches_of_records_has_letters() -> None:
    @node("dead.each")
    def each(value: int) -> Iterator[int]:
        yield from (value, value + 1)

    @node("dead.sum", kind="collect")
    def add(values: list[int]) -> int:
        return refuse_odd(sum(values))

    result, letters = await ran(line(each, add), [[1, 2]])
    assert [(letter.node, letter.record, letter.value) for letter in letters] == [
        ("n1", 1, [1, 2]),
        ("n1", 2, [2, 3]),
    ]
    assert result.handled

    @node("dead.pairs", kind="batch", batch=Batch(max_items=2))
    def pairs(values: list[int]) -> list[int]:
        return [refuse_odd(value) for value in values]

    result, letters = await ran(line(pairs), [[1, 2, 4, 6]])
    assert [(letter.node, letter.record, letter.value) for letter in letters] == [("n0", 1, 1), ("n0", 2, 2)]
    assert result.counts["k"].completed == 1


# --- one record and several letters, several records and one row ------------------------------------------


@virtual
async def test_a_record_with_several_failed_children_has_a_letter_for_each_with_one_origin() -> None:
    @node("dead.range")
    def count(value: int) -> Iterator[int]:
        yield from range(value)

    result, letters = await ran(line(count, refuse_odd), [[4, 2]])
    assert [(letter.record, letter.value) for letter in letters] == [(4, 1), (4, 3), (2, 1)]
    first, second, third = letters
    assert first.execution_id == second.execution_id != third.execution_id
    assert first.origin == second.origin != third.origin
    assert len({letter.id for letter in letters}) == 3
    assert result.counts["k"].completed == 3


@virtual
async def test_a_row_made_of_several_records_has_a_letter_for_each_and_tells_its_value_once() -> None:
    """Else the other records of a batch would be committed without a trace."""

    @node("dead.gathered", kind="batch", batch=Batch(max_items=3))
    def gathered(values: list[int]) -> list[int]:
        return values

    @node("dead.refuse")
    def refuse(values: list[int]) -> int:
        raise ValueError(f"no {values}")

    result, letters = await ran(line(gathered, refuse), [[1, 2, 3]])
    assert [letter.record for letter in letters] == [1, 2, 3]
    assert [letter.together for letter in letters] == [None, letters[0].id, letters[0].id]
    assert letters[0].value == [1, 2, 3]
    assert (result.counts["n1"].failed, result.counts["n1"].dead_lettered, result.handled) == (1, 3, True)


# --- policies ---------------------------------------------------------------------------------------------


@virtual
async def test_a_letter_tells_the_attempts_and_a_row_that_succeeds_later_has_none() -> None:
    tries: dict[int, int] = {}

    @node("dead.flaky", retry=RetryPolicy(max_attempts=3, retry_on=("ValueError",)))
    async def flaky(value: int) -> int:
        tries[value] = tries.get(value, 0) + 1
        if value == 1 or tries[value] < 2:
            raise ValueError(f"try {tries[value]}")
        return value

    result, letters = await ran(line(flaky), [[1, 2]])
    assert [(letter.record, letter.attempts, letter.error.message) for letter in letters] == [(1, 3, "try 3")]
    assert result.counts["k"].completed == 1


@virtual
async def test_a_call_that_hangs_is_cut_at_its_timeout_and_has_a_letter() -> None:
    @node("dead.hangs", timeout=timedelta(seconds=2))
    async def hangs(value: int) -> int:
        if value == 1:
            await asyncio.Event().wait()
        return value

    _, letters = await ran(line(hangs), [[1, 2]])
    (letter,) = letters
    assert (letter.error.kind, letter.error.retriable) == (NodeTimeoutError.__name__, True)
    assert letter.error.facts["timeout_s"] == 2.0


@virtual
async def test_an_error_connection_comes_before_a_dead_letter_and_other_nodes_keep_their_own_policy() -> None:
    wrong = kept(name="test.wrong")
    wf = Workflow("ports", settings=DEAD_LETTER)
    source = wf.add(Script, id="s")
    ported, ignored = wf.add(refuse_odd, id="ported"), wf.add(refuse_odd, id="ignored", on_error="continue")
    wf.connect(source, ported["value"])
    wf.connect(source, ignored["value"])
    wf.connect(ported["error"], wf.add(wrong, id="wrong"))
    wf.chain(ported, wf.add(kept(name="test.a"), id="a"))
    wf.chain(ignored, wf.add(kept(name="test.b"), id="b"))
    result, letters = await ran(wf, [[1, 2]])
    assert letters == []
    assert [row["record"] for row in wrong.rows] == [1]
    assert not result.handled, "a failure that is only counted is not handled"


@virtual
async def test_a_node_that_stops_the_workflow_still_does_so_beside_one_with_letters() -> None:
    wf = Workflow("both", settings={"dead_letter": {"type": "test.graveyard"}})
    buried = wf.add(refuse_odd, id="buried", on_error="dead_letter")
    wf.chain(wf.add(Script, id="s"), buried, wf.add(same, id="n"), wf.add(kept(lambda _: 1 / 0), id="k"))
    result, letters = await ran(wf, [[1], [2]])
    assert result.state.name == "failed"
    assert isinstance(result.cause, ZeroDivisionError)
    assert all(letter.node == "buried" for letter in letters)


# --- settlement -------------------------------------------------------------------------------------------


class SlowLetters(CollectedLetters):
    """Each write takes ten seconds."""

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            await asyncio.sleep(10)
        await super().write(letters)


@virtual
async def test_a_position_is_committed_only_when_the_letters_before_it_are_kept() -> None:
    letters = SlowLetters()
    source = Script([[2, 1, 4]])
    async with runtime(nodes=[graveyard(letters)]) as rt:
        run = await rt.start(line(refuse_odd, commit_interval="100ms"), sources={"s": source})
        await asyncio.sleep(5)
        assert source.committed["0"] == [1], "what came before the failed row"
        assert letters.letters == []
        await run.wait()
    assert source.committed["0"][-1] == 3
    assert len(letters.letters) == 1


@virtual
async def test_letters_that_wait_are_written_together_and_rows_without_failure_do_not_wait() -> None:
    letters = SlowLetters()
    wf = line(refuse_odd, max_in_flight=100)
    source = Script([[number] for number in range(40)])
    async with runtime(nodes=[graveyard(letters)]) as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(1)
        assert run.live_counts()["k"].completed == 20
        result = await run.wait()
    assert sum(letters.writes) == len(letters.letters) == result.dead_letters == 20
    assert len(letters.writes) <= 2, "the first by itself at most, all others together"


@virtual
async def test_letters_that_are_not_written_hold_the_source_back() -> None:
    """Their rows are unsettled, so credit bounds how many there are."""
    letters = SlowLetters()
    source = Script([[1]] * 500)
    async with runtime(nodes=[graveyard(letters)]) as rt:
        run = await rt.start(line(refuse_odd, max_in_flight=10), sources={"s": source})
        await asyncio.sleep(5)
        assert source.handed_over <= 10
        await run.cancel()
    assert letters.letters == []


@virtual
async def test_a_store_that_cannot_write_fails_the_run_and_the_row_is_not_committed() -> None:
    letters = CollectedLetters()
    source = Script([[2], [3], [4]])
    async with runtime(nodes=[graveyard(letters)]) as rt:
        run = await rt.start(line(refuse_odd), sources={"s": source})
        letters.fails = OSError("disk full")
        result = await run.wait()
    assert result.state.name == "failed"
    assert isinstance(result.cause, DeadLetterError)
    assert "disk full" in str(result.cause)
    assert "'n0'" in str(result.cause)
    assert "odd 3" in str(result.cause)
    assert not result.handled
    assert result.dead_letters == 0
    assert max(source.committed["0"], default=0) <= 1


@virtual
async def test_a_store_that_cannot_be_opened_lets_nothing_start() -> None:
    letters = CollectedLetters()
    letters.fails = OSError("no such folder")
    source = Script([[1]])
    async with runtime(nodes=[graveyard(letters)]) as rt:
        with pytest.raises(OSError, match="no such folder"):
            await rt.start(line(refuse_odd), sources={"s": source})
    assert source.handed_over == 0


@virtual
async def test_a_workflow_none_of_whose_rows_become_letters_opens_no_store() -> None:
    letters = CollectedLetters()
    letters.fails = OSError("no such folder")
    wf = line(same, on_error="continue")
    result, _ = await ran(wf, [[1]], letters)
    assert result.ok


@virtual
async def test_stopping_and_cancelling_leave_unkept_letters_uncommitted() -> None:
    for end in ("stop", "cancel"):
        letters = SlowLetters()
        source = Script([[1], [2]])
        async with runtime(nodes=[graveyard(letters)]) as rt:
            run = await rt.start(line(refuse_odd), sources={"s": source})
            await asyncio.sleep(1)
            result = await (run.stop(timedelta(seconds=1)) if end == "stop" else run.cancel())
        assert result.abandoned == 1
        assert not result.handled
        assert source.committed["0"] == []
        assert letters.letters == []


async def test_a_full_disk_under_the_letters_fails_the_run_and_the_next_one_loses_nothing(
    tmp_path: Path,
) -> None:
    place = {"type": "files.sink", "config": {"path": str(tmp_path / "dead.jsonl")}}
    sink = kept(name="dead.full")
    wf = Workflow("full", settings={"on_error": "dead_letter", "dead_letter": place, "max_frame": 4})
    wf.chain(wf.add(Script, id="s"), wf.add(refuse_odd, id="n"), wf.add(sink, id="k"))
    source = Script([[number] for number in range(60)])
    async with runtime() as rt:
        with file_size_limit(6_000):
            result = await (await rt.start(wf, sources={"s": source})).wait()
        assert result.state.name == "failed"
        assert isinstance(result.cause, DeadLetterError)
        assert "larger" in str(result.cause)
        committed = max(source.committed["0"], default=0)
        again = Script([[number] for number in range(committed, 60)])
        assert (await (await rt.start(wf, sources={"s": again})).wait()).handled
    lines = (tmp_path / "dead.jsonl").read_text().splitlines()
    buried = [json.loads(line)["record"] for line in lines]
    print(f"committed={committed} letters={len(buried)}, {len(buried) - len(set(buried))} of them twice")  # noqa: T201 - the last line of every delivery test
    assert 0 < committed < 60
    assert set(buried) == set(range(1, 60, 2))
    assert set(sink.rows) == set(range(0, 60, 2))


# --- requests ---------------------------------------------------------------------------------------------


def request(**settings: Any) -> Workflow:
    wf = Workflow("asked", settings=DEAD_LETTER | settings)
    wf.chain(wf.add(refuse_odd, id="n"), wf.add(later, id="after"))
    return wf


@virtual
async def test_a_request_that_fails_is_partial_and_handled_once_its_letter_is_kept() -> None:
    letters = SlowLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        began = asyncio.get_running_loop().time()
        result = await rt.execute(request(), {"n": {"value": 3}})
        assert asyncio.get_running_loop().time() - began >= 10
        assert (result.state.name, result.handled, result.ok, result.dead_letters) == (
            "partial",
            True,
            False,
            1,
        )
        assert result.letters == letters.letters
        good = await rt.execute(request(), {"n": {"value": 2}})
        assert good.ok
        assert not good.letters
    (letter,) = letters.letters
    assert (letter.origin.source, letter.record) == (None, {"n": {"value": 3}})
    assert letter.execution_id == result.execution_id
    assert result.to_data()["letters"] == [{"id": letter.id, "node": "n"}]


@virtual
async def test_a_request_whose_letter_cannot_be_written_has_failed() -> None:
    letters = CollectedLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        wf = request()
        assert (await rt.execute(wf, {"n": {"value": 2}})).ok
        letters.fails = OSError("disk full")
        result = await rt.execute(wf, {"n": {"value": 3}})
        assert result.state.name == "failed"
        assert isinstance(result.cause, DeadLetterError)
        letters.fails = None
        assert (await rt.execute(wf, {"n": {"value": 5}})).handled


@virtual
async def test_a_cancelled_request_does_not_wait_for_its_letter_which_is_written_all_the_same() -> None:
    letters = SlowLetters()
    wf = Workflow("forked", settings=DEAD_LETTER)
    wf.add(refuse_odd, id="n")
    async with runtime(nodes=[graveyard(letters)]) as rt:
        began = asyncio.get_running_loop().time()
        result = await rt.execute(wf, {"n": {"value": 3}}, timeout=timedelta(seconds=1))
        assert asyncio.get_running_loop().time() - began <= 1.05
        assert result.state.name == "failed"
    assert [letter.record for letter in letters.letters] == [{"n": {"value": 3}}]


@virtual
async def test_letters_of_a_request_whose_sinks_are_captured_are_captured_too() -> None:
    """A trial writes nothing; with `write` it is no trial."""
    letters = CollectedLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        wf = line(refuse_odd)
        trial = await rt.execute(wf, {"s": 3})
        assert (trial.handled, trial.dead_letters, letters.letters) == (True, 0, [])
        assert [(letter.origin.source, letter.record) for letter in trial.letters] == [("s", 3)]
        real = await rt.execute(wf, {"s": 5}, write=True)
        assert (real.handled, real.dead_letters) == (True, 1)
    assert [letter.record for letter in letters.letters] == [5]


@virtual
async def test_items_of_a_stream_have_letters_unless_a_pipeline_is_only_tried() -> None:
    letters = CollectedLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        outcomes = [out async for out in rt.stream(request(), [1, 2, 3])]
        assert [out.ok for out in outcomes] == [False, True, False]
        assert [letter.record for letter in letters.letters] == [{"n": {"value": 1}}, {"n": {"value": 3}}]
        assert [out.ok async for out in rt.stream(line(refuse_odd), [5])] == [False]
        assert len(letters.letters) == 2
        assert [out.ok async for out in rt.stream(line(refuse_odd), [7], write=True)] == [False]
    assert letters.letters[-1].record == 7


# --- what a letter says -----------------------------------------------------------------------------------


@virtual
async def test_key_headers_event_time_and_the_workflow_are_in_the_letter() -> None:
    def add_columns(rows: Rows[Any]) -> None:
        rows.keys = [b"key"] * len(rows)
        rows.headers = [{"trace": 1 << 70}] * len(rows)
        rows.times = [datetime(2026, 1, 2, tzinfo=UTC)] * len(rows)

    letters = CollectedLetters()
    wf = line(refuse_odd)
    async with runtime(nodes=[graveyard(letters)]) as rt:
        await (await rt.start(wf, sources={"s": Changed([[1]], add_columns)})).wait()
    (letter,) = letters.letters
    assert from_plain(letter.origin.key) == b"key"
    assert from_plain(letter.origin.headers) == {"trace": 1 << 70}
    assert letter.origin.event_time == "2026-01-02T00:00:00+00:00"
    assert (letter.workflow, letter.workflow_version) == ("line", "1")
    assert len(letter.workflow_hash) == 64
    assert letter.lossy == {}


@virtual
async def test_known_secrets_and_what_stands_under_their_names_are_masked_and_said_to_be() -> None:
    @node("dead.leaky")
    def leaky(record: dict[str, Any], ctx: NodeContext) -> None:
        raise ValueError(f"refused with {ctx.secret('KEY').reveal()}")

    letters = CollectedLetters()
    records = [
        {"text": "my key is s3cr3t-0f-mine, really", "n": 1},
        {"password": "hunter2222", "n": 2},
        {"n": 3},
    ]
    async with runtime(nodes=[graveyard(letters)], secrets={"KEY": "s3cr3t-0f-mine"}) as rt:
        wf = Workflow("leaky", settings=DEAD_LETTER)
        wf.chain(wf.add(Script, id="s"), wf.add(leaky, id="n"), wf.add(kept(), id="k"))
        with recorded(rt.events) as seen:
            await (await rt.start(wf, sources={"s": Script([records[:1], records])})).wait()
    text = repr(letters.letters) + repr(seen.of(RecordDeadLettered))
    assert "hunter2222" not in text
    assert "s3cr3t" not in text
    assert letters.letters[0].error.message == "refused with ***"
    assert [bool(letter.lossy) for letter in letters.letters] == [True, True, True, False]
    assert letters.letters[2].record == {"password": "***", "n": 2}
    assert "secrets" in letters.letters[2].lossy["record"]


class Foreign:
    def __repr__(self) -> str:
        return "<foreign>"


@virtual
async def test_a_record_without_a_plain_form_has_a_letter_that_describes_it_and_says_so() -> None:
    @node("dead.any")
    def refuse(value: Any) -> None:
        raise ValueError("no")

    odd = [Foreign(), {"\ud800": 1}, {"live": iter([1])}, (1, 2), {"fine": float("nan")}]
    _, letters = await ran(line(refuse), [odd])
    assert [sorted(letter.lossy) for letter in letters] == [["record", "value"]] * 4 + [[]]
    assert "<foreign>" in repr(letters[0].record)
    assert "Foreign" in letters[0].lossy["record"]


@virtual
async def test_every_letter_is_an_event_and_follows_the_failure() -> None:
    letters = CollectedLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        with recorded(rt.events) as seen:
            await (await rt.start(line(refuse_odd), sources={"s": Script([[1, 2, 3]])})).wait()
    told = seen.of(RecordDeadLettered)
    assert [event.letter_id for event in told] == [letter.id for letter in letters.letters]
    assert [(event.node, event.source, event.partition, event.attempts) for event in told] == [
        ("n0", "s", "0", 1)
    ] * 2
    failed = seen.of(NodeFailed)
    assert [event.error for event in told] == [event.error for event in failed]
    assert max(event.seq for event in failed) < min(event.seq for event in told)


@virtual
async def test_letters_are_counted_among_the_metrics() -> None:
    async with runtime(nodes=[graveyard(CollectedLetters())]) as rt:
        await (await rt.start(line(refuse_odd), sources={"s": Script([[1, 2, 3]])})).wait()
        samples = rt.metrics.snapshot()
    labels = [dict(each.labels) for each in samples]
    found = {
        mine["outcome"]: sample.value
        for sample, mine in zip(samples, labels, strict=True)
        if sample.name == "flow_rows_total" and mine["node"] == "n0"
    }
    assert (found["failed"], found["dead_lettered"]) == (2, 2)
