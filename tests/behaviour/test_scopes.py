"""Scopes: expanding, collecting, merging, joining with an ancestor, gathering, batching, raw operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import reactivex.operators as ops
from reactivex import Observable

from flowcore import Gather, Record, Workflow, node, operator
from flowcore.errors import ContractError, NodeTimeoutError, ValidationFailedError
from tests.behaviour.harness import Script, kept, later, now, runtime, same, virtual, wait


@node("sc.split")
def split(value: Any) -> Iterator[Any]:
    yield from value


@node("sc.collect", kind="collect")
def collect(items: Any) -> list[Any]:
    return list(items)


@node("sc.merge", kind="merge")
def merge(value: Any) -> Any:
    return value


@node("sc.pair")
def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return (a, b)


@node("sc.all")
def gathered(values: Gather[Any]) -> list[Any]:
    return list(values)


@node("sc.odd", kind="filter")
def odd(value: int) -> bool:
    return value % 2 == 1


@node("sc.fail_on_three")
async def fail_on_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


# --- expanding and collecting -------------------------------------------------------------------------


@virtual
async def test_nested_expanding_and_collecting_gives_nested_lists_in_order() -> None:
    """OPR-9."""
    wf = Workflow("nested")
    outer, inner = wf.add(split, id="outer"), wf.add(split, id="inner")
    slow = wf.add(wait, id="slow")
    words, lines = wf.add(collect, id="words"), wf.add(collect, id="lines")
    wf.chain(outer, inner, slow, words, lines)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [[[3.0, 1.0], [2.0]], [], [[], [0.5]]], order="input")]
    assert [out.value for out in outcomes] == [[[3.0, 1.0], [2.0]], [], [[], [0.5]]]


@virtual
async def test_a_record_that_expands_to_nothing_is_settled_and_collects_to_an_empty_list() -> None:
    source = Script([[[], [1]]])
    sink = kept()
    wf = Workflow("zero")
    wf.chain(wf.add(Script, id="s"), wf.add(split, id="x"), wf.add(collect, id="c"), wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert sink.rows == [[], [1]]
    assert result.records == 2
    assert source.committed["0"][-1] == 2


@virtual
async def test_children_that_are_dropped_are_left_out_and_one_that_fails_skips_the_list_with_the_cause() -> (
    None
):
    wf = Workflow("children", settings={"on_error": "continue"})
    wf.chain(
        wf.add(split, id="x"), wf.add(odd, id="o"), wf.add(fail_on_three, id="f"), wf.add(collect, id="c")
    )
    async with runtime() as rt:
        fine = await rt.execute(wf, {"x": {"value": [1, 2, 5]}})
        failed = await rt.execute(wf, {"x": {"value": [1, 3, 5]}})
    assert fine.outputs["c"]["out"] == [1, 5]
    assert failed.outcomes["c"].state == "skipped"
    assert failed.outcomes["c"].cause == "f"
    assert failed.outcomes["f"].failed == 1


@virtual
async def test_an_expanding_node_that_fails_midway_skips_the_list() -> None:
    @node("sc.torn")
    async def torn(value: int) -> AsyncIterator[int]:
        yield 1
        yield 2
        raise OSError("torn")

    wf = Workflow("torn", settings={"on_error": "continue"})
    wf.chain(wf.add(torn, id="x"), wf.add(later, id="n"), wf.add(collect, id="c"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"x": {"value": 1}})
    assert result.outputs["n"]["out"] == [1, 2]
    assert (result.outcomes["c"].state, result.outcomes["c"].cause) == ("skipped", "x")


@virtual
async def test_more_children_than_allowed_fail_the_record_with_the_bound_in_the_error() -> None:
    wf = Workflow("bounded", settings={"on_error": "continue"})
    wf.chain(wf.add(split, id="x", max_children=3), wf.add(same, id="n"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"x": {"value": range(10)}})
    assert result.outputs["n"]["out"] == [0, 1, 2]
    assert "max_children" in str(result.errors["x"][0])


# --- joins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [same, later])
@virtual
async def test_children_join_the_value_of_their_ancestor(between: Any) -> None:
    wf = Workflow("ancestor")
    top = wf.add(same, id="top")
    slow, x, both = wf.add(between, id="slow"), wf.add(split, id="x"), wf.add(pair, id="both")
    wf.connect(top["out.many"], x)
    wf.connect(top["out.name"], slow)
    wf.connect(x, both["a"])
    wf.connect(slow, both["b"])
    async with runtime() as rt:
        outcomes = [
            out async for out in rt.stream(wf, [{"many": [1, 2], "name": "p"}, {"many": [3], "name": "q"}])
        ]
    assert [out.value for out in outcomes] == [[(1, "p"), (2, "p")], [(3, "q")]]


@virtual
async def test_children_wait_for_an_ancestors_value_that_comes_later_than_they_do() -> None:
    wf = Workflow("late ancestor")
    top = wf.add(same, id="top")
    slow, x, both = wf.add(wait, id="slow"), wf.add(split, id="x"), wf.add(pair, id="both")
    wf.connect(top["out.many"], x)
    wf.connect(top["out.seconds"], slow)
    wf.connect(x, both["a"])
    wf.connect(slow, both["b"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"top": {"value": {"many": [1, 2], "seconds": 5.0}}})
    assert result.outputs["both"]["out"] == [(1, 5.0), (2, 5.0)]


@virtual
async def test_rows_that_do_not_belong_together_are_refused_with_what_to_use_instead() -> None:
    wf = Workflow("strangers")
    top = wf.add(same, id="top")
    left, right, both = wf.add(split, id="left"), wf.add(split, id="right"), wf.add(pair, id="both")
    wf.connect(top, left)
    wf.connect(top, right)
    wf.connect(left, both["a"])
    wf.connect(right, both["b"])
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError) as raised:
            await rt.execute(wf, {"top": {"value": [1]}})
    message = str(raised.value)
    assert "'both'" in message
    for remedy in ("control.collect", "not there yet"):
        assert remedy in message


# --- branches -----------------------------------------------------------------------------------------


def branches(second: Any, *, merging: Any) -> Workflow:
    """Value -> (odd) a | (else) b -> m."""
    wf = Workflow("branches")
    top, a, b = wf.add(same, id="top"), wf.add(second, id="a"), wf.add(second, id="b")
    wf.connect(top, a, when="value % 2 == 1")
    wf.connect(top, b, otherwise=True)
    m = wf.add(merging, id="m")
    port = "values" if merging is gathered else "value"
    wf.connect(a, m[port])
    wf.connect(b, m[port])
    return wf


@pytest.mark.parametrize("second", [same, later])
@virtual
async def test_exclusive_branches_meet_again_as_the_same_row(second: Any) -> None:
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(branches(second, merging=merge), range(6))]
        result = await rt.execute(branches(second, merging=merge), {"top": {"value": 3}})
    assert [out.value for out in outcomes] == [0, 1, 2, 3, 4, 5]
    assert result.outputs["m"]["out"] == 3
    assert result.outcomes["a"].state == "completed"
    assert (result.outcomes["b"].state, result.outcomes["b"].cause) == ("skipped", "branch not taken")


@virtual
async def test_branches_that_may_both_carry_a_row_give_a_row_each() -> None:
    wf = Workflow("both")
    top, a, b, m = wf.add(same, id="top"), wf.add(later, id="a"), wf.add(same, id="b"), wf.add(merge, id="m")
    wf.connect(top, a, when="value > 1")
    wf.connect(top, b, when="value > 2")
    wf.connect(a, m)
    wf.connect(b, m)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2, 3])]
    assert [out.dropped for out in outcomes] == [True, False, False]
    assert [sorted(out.value or []) for out in outcomes] == [[], [2], [3, 3]]


@pytest.mark.parametrize("second", [same, later])
@virtual
async def test_a_gather_waits_for_all_its_branches_and_leaves_out_those_not_taken(second: Any) -> None:
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(branches(second, merging=gathered), range(4))]
    assert [out.value for out in outcomes] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("second", [same, later])
@virtual
async def test_a_gather_behind_a_failed_branch_is_skipped_with_the_cause(second: Any) -> None:
    wf = Workflow("failed branch", settings={"on_error": "continue"})
    top, bad, good = wf.add(same, id="top"), wf.add(fail_on_three, id="bad"), wf.add(second, id="good")
    tail = wf.add(gathered, id="tail")
    for node_handle in (bad, good):
        wf.connect(top, node_handle)
        wf.connect(node_handle, tail["values"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"top": {"value": 3}})
    assert not result.ok
    assert (result.outcomes["tail"].state, result.outcomes["tail"].cause) == ("skipped", "bad")


@pytest.mark.parametrize("second", [same, later])
@virtual
async def test_a_switch_sends_each_row_one_way_and_its_branches_meet_again(second: Any) -> None:
    wf = Workflow("switch")
    cases = {"big": "value > 10", "odd": "value % 2 == 1"}
    way = wf.add("control.switch", id="way", config={"cases": cases})
    m = wf.add(merge, id="m")
    for port in ("big", "odd", "otherwise"):
        branch = wf.add(second, id=f"to_{port}")
        wf.connect(way[port], branch)
        wf.connect(branch, m)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2, 11, 12])]
        result = await rt.execute(wf, {"way": {"value": 11}})
    assert [out.value for out in outcomes] == [1, 2, 11, 12]
    states = {name: outcome.state for name, outcome in result.outcomes.items()}
    assert states == {
        "way": "completed",
        "to_big": "completed",
        "to_odd": "skipped",
        "to_otherwise": "skipped",
        "m": "completed",
    }


@virtual
async def test_rows_no_branch_takes_are_counted_as_unrouted_and_settled() -> None:
    sink = kept()
    source = Script([[1, 2, 3, 4]])
    wf = Workflow("unrouted")
    s, k = wf.add(Script, id="s"), wf.add(sink, id="k")
    wf.connect(s, k, when="value > 2")
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert sink.rows == [3, 4]
    assert result.counts["s"].unrouted == 2
    assert result.records == 4
    assert source.committed["0"][-1] == 4


@virtual
async def test_a_condition_that_cannot_be_evaluated_fails_the_row_unless_told_otherwise() -> None:
    for when_error, state in ((True, "partial"), (False, "completed")):
        wf = Workflow("broken condition", settings={"on_error": "continue"})
        a, b = wf.add(same, id="a"), wf.add(same, id="b")
        wf.connect(a, b, when="value.missing > 1", when_error=when_error)
        async with runtime() as rt:
            result = await rt.execute(wf, {"a": {"value": {"other": 1}}})
        assert result.state.name == state
        assert result.outcomes["b"].state == ("failed" if when_error else "skipped")


@virtual
async def test_a_control_edge_orders_nodes_and_carries_no_value() -> None:
    wf = Workflow("control")
    first, second = wf.add(wait, id="first"), wf.add(later, id="second")
    wf.connect(first, second, kind="control")
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": {"seconds": 3.0}, "second": {"value": "own"}})
    assert result.outputs["second"]["out"] == "own"
    assert result.outcomes["second"].started_at == 3.0


@virtual
async def test_a_node_behind_a_control_edge_is_skipped_when_the_node_before_it_failed() -> None:
    wf = Workflow("control", settings={"on_error": "continue"})
    first, second = wf.add(fail_on_three, id="first"), wf.add(same, id="second")
    wf.connect(first, second, kind="control")
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": {"value": 3}, "second": {"value": "own"}})
    assert (result.outcomes["second"].state, result.outcomes["second"].cause) == ("skipped", "first")


# --- batches ------------------------------------------------------------------------------------------


@node("sc.group", kind="batch")
def group(items: Any) -> list[Any]:
    return list(items)


async def pause() -> None:
    await asyncio.sleep(10)


@virtual
async def test_a_batch_leaves_at_its_size_at_its_linger_and_at_the_end() -> None:
    """OPR-10."""
    left: list[tuple[float, list[int]]] = []
    sink = kept(lambda batch: left.extend((now(), value) for value in batch.values) or {})
    wf = Workflow("batches")
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(group, id="g", batch={"max_items": 3, "linger": "2s"}),
        wf.add(sink, id="k"),
    )
    source = Script([[1, 2, 3, 4], pause, [5], pause_short, [6]])
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert left == [(0.0, [1, 2, 3]), (2.0, [4]), (11.0, [5, 6])]
    assert result.records == 6
    assert source.committed["0"][-1] == 6


async def pause_short() -> None:
    await asyncio.sleep(1)


@virtual
async def test_a_batch_that_waits_for_rows_the_credit_does_not_allow_is_let_go() -> None:
    """Ten rows fit into flight and the batch wants twelve: it may not wait for rows that cannot come."""
    sink = kept()
    wf = Workflow("starved", settings={"max_in_flight": 10})
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(group, id="g", batch={"max_items": 12, "linger": "1h"}),
        wf.add(sink, id="k"),
    )
    async with runtime() as rt:
        try:
            run = await rt.start(wf, sources={"s": Script([list(range(30))])})
        except ValidationFailedError as refused:
            assert "max_in_flight" in str(refused)  # noqa: PT017 - one of the two, both say it
            return
        result = await run.wait()
    assert [len(rows) for rows in sink.rows] == [10, 10, 10]
    assert result.ok
    assert now() < 1


@virtual
async def test_a_slow_batch_node_gets_full_batches_and_a_bad_item_fails_alone() -> None:
    from collections.abc import Sequence

    from flowcore import Batch

    sizes: list[int] = []

    @node("sc.embed", batch=Batch(max_items=4, linger=timedelta(milliseconds=5)))
    async def embed(texts: Sequence[int]) -> Sequence[Any]:
        sizes.append(len(texts))
        await asyncio.sleep(1)
        return [ValueError("three") if text == 3 else text * 10 for text in texts]

    wf = Workflow("embed", settings={"on_error": "continue"})
    wf.add(embed, id="e", concurrency=1)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, range(10))]
    assert sizes == [4, 4, 2]
    assert [out.value for out in outcomes] == [0, 10, 20, None, 40, 50, 60, 70, 80, 90]
    assert str(outcomes[3].error) == "three"


@virtual
async def test_a_batch_node_that_returns_the_wrong_number_fails_its_rows_with_both_numbers() -> None:
    """NOD-8."""
    from collections.abc import Sequence

    from flowcore import Batch

    @node("sc.short", batch=Batch(max_items=4))
    async def short(texts: Sequence[int]) -> Sequence[int]:
        return texts[:-1]

    wf = Workflow("short", settings={"on_error": "continue"})
    wf.add(short, id="e")
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, range(4))]
    assert all(isinstance(out.error, ContractError) for out in outcomes)
    assert "3 results for 4 rows" in str(outcomes[0].error)


# --- raw operators ------------------------------------------------------------------------------------

Stream = Observable[Record[Any]]


@virtual
async def test_an_operator_that_settles_on_entry_is_refused_unless_a_weaker_promise_is_accepted() -> None:
    """OPR-14."""

    @operator("sc.distinct", settles="on_entry")
    def distinct() -> Callable[[Stream], Stream]:
        return lambda source: source.pipe(ops.distinct_until_changed(lambda record: record.value))

    for settings, allowed in (
        ({}, False),
        ({"allow_weaker": True}, True),
        ({"delivery": "at_most_once"}, True),
    ):
        sink = kept()
        wf = Workflow("weaker", settings=settings)
        wf.chain(wf.add(Script, id="s"), wf.add(distinct, id="d"), wf.add(sink, id="k"))
        async with runtime() as rt:
            if not allowed:
                with pytest.raises(ValidationFailedError, match="allow_weaker"):
                    await rt.start(wf, sources={"s": Script([[1]])})
                continue
            result = await (await rt.start(wf, sources={"s": Script([[1, 1, 2, 2, 1]])})).wait()
        assert result.ok
        assert sink.rows == [1, 2, 1]


def explicit(transform: Callable[[Stream], Stream], **options: Any) -> Any:
    @operator("sc.explicit", settles="explicit", **options)
    def make() -> Callable[[Stream], Stream]:
        return transform

    return make


@virtual
async def test_an_explicit_operator_forwards_changes_and_drops_and_every_row_is_settled() -> None:
    """OPR-13."""

    def double_odd(record: Record[Any]) -> Record[Any]:
        return record.with_value(record.value * 2) if record.value % 2 else record.drop()

    sink = kept()
    source = Script([[1, 2, 3]])
    wf = Workflow("explicit")
    kind = explicit(lambda rows: rows.pipe(ops.map(double_odd)))
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="o"), wf.add(later, id="n"), wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert sink.rows == [2, 6]
    assert result.records == 3
    assert source.committed["0"][-1] == 3


async def never() -> None:
    await asyncio.Event().wait()


@virtual
async def test_a_row_an_explicit_operator_does_not_answer_fails_after_its_timeout() -> None:
    sink = kept()
    wf = Workflow("silent", settings={"on_error": "continue"})
    kind = explicit(lambda rows: rows.pipe(ops.filter(lambda r: r.value != 2)), timeout=timedelta(seconds=3))
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="o"), wf.add(sink, id="k"))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1, 2, 3], never])})
        await asyncio.sleep(5)
        result = await run.drain()
    assert sink.rows == [1, 3]
    assert [type(error) for error in result.errors["o"]] == [NodeTimeoutError]
    assert result.records == 3


@pytest.mark.parametrize("rows", [[[1, 2, 3, 4]], [[1], [2], [3], [4]]])
@virtual
async def test_rows_an_operator_no_longer_listens_to_fail_and_do_not_hang(rows: list[list[int]]) -> None:
    sink = kept()
    wf = Workflow("deaf", settings={"on_error": "continue"})
    kind = explicit(lambda source: source.pipe(ops.take(2)))
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="o"), wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script(rows)})).wait()
    assert sink.rows == [1, 2]
    assert result.counts["o"].failed == 2
    assert result.records == 4


@virtual
async def test_an_operator_that_fails_fails_the_run_and_names_itself() -> None:
    def explode(record: Record[Any]) -> Record[Any]:
        raise ZeroDivisionError("inside")

    wf = Workflow("explode")
    kind = explicit(lambda source: source.pipe(ops.map(explode)))
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="o"))
    source = Script([[1, 2]])
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert "'o'" in str(result.cause)
    assert "inside" in str(result.cause)
    assert source.committed["0"] == []


@virtual
async def test_an_operators_answer_that_comes_after_the_timeout_is_not_heard() -> None:
    sink = kept()
    wf = Workflow("late", settings={"on_error": "continue"})
    kind = explicit(lambda rows: rows.pipe(ops.delay(5.0)), timeout=timedelta(seconds=3))
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="o"), wf.add(sink, id="k"))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1], never])})
        await asyncio.sleep(10)
        result = await run.drain()
    assert result.state.name == "partial"
    assert sink.rows == []


@virtual
async def test_a_request_through_an_operator_gets_a_fresh_one_each_time_and_its_deadline_is_kept() -> None:
    """OPR-5."""
    wf = Workflow("fresh")
    kind = explicit(lambda rows: rows.pipe(ops.scan(lambda a, b: b.with_value(a.value + b.value))))
    wf.chain(wf.add(same, id="a"), wf.add(kind, id="o"), wf.add(wait, id="w"))
    async with runtime() as rt:
        for _ in range(2):
            result = await rt.execute(wf, {"a": {"value": 1.0}})
            assert result.outputs["w"]["out"] == [1.0] or result.outputs["w"]["out"] == 1.0
        late = await rt.execute(wf, {"a": {"value": 50.0}}, timeout=timedelta(seconds=1))
        assert late.state.name == "failed"
        assert now() == pytest.approx(3.0, abs=0.05)
