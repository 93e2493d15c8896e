"""Random workflows that wait: with pauses, answers in any order and restarts they give the same as at once.

Owns: the generator of workflows and the comparison with the same workflow in which nobody waits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore import NodeContext, WaitRequest, Workflow, node
from flowcore.settings import Settings
from flowruntime.execute.result import RunResult
from flowruntime.state.store.memory import MemoryStore
from tests.behaviour.harness import runtime, virtual

CALLS: Counter[str] = Counter()


@node("pw.add")
def add(value: int, *, me: str) -> int:
    CALLS[f"{me} {value}"] += 1
    return value + 1


@node("pw.later")
async def later(value: int, *, me: str) -> int:
    CALLS[f"{me} {value}"] += 1
    await asyncio.sleep(value % 3)
    return value * 2


@node("pw.fail")
def fail(value: int, *, me: str) -> int:
    CALLS[f"{me} {value}"] += 1
    if value % 4 == 0:
        raise ValueError(f"{value} is refused")
    return value


@node("pw.some", kind="filter")
def some(value: int, *, me: str) -> bool:
    CALLS[f"{me} {value}"] += 1
    return value % 3 != 0


@node("pw.many")
def many(value: int, *, me: str) -> Iterator[int]:
    CALLS[f"{me} {value}"] += 1
    for number in range(value % 4):
        yield value + number
    if value % 5 == 0:
        raise ValueError(f"{value} breaks off")


@node("pw.sum", kind="collect")
def summed(items: list[int], *, me: str) -> int:
    CALLS[f"{me} {items}"] += 1
    return sum(items)


@node("pw.join")
def joined(left: int, right: int, *, me: str) -> int:
    CALLS[f"{me} {left} {right}"] += 1
    return left * 31 + right


@node("pw.ask", waits=True)
async def ask(value: int, ctx: NodeContext, *, me: str) -> int:
    del me
    return value + await ctx.wait(WaitRequest(kind="form", title=str(value), schema={"type": "integer"}))


def answer_to(title: str) -> int:
    """What is answered, whoever is asked."""
    return int(title) % 7


def answered(value: int) -> int:
    """What an asking node gives when the answer is there at once."""
    return value + answer_to(str(value))


NODES = [add, later, fail, some, many, summed, joined, ask]
Plan = list[tuple[str, int, int]]
"""For each node: its kind, and which of the nodes before it its inputs come from."""
KINDS = ["add", "later", "fail", "some", "many", "sum", "join", "ask", "ask"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(2, 8))
    return [
        (draw(st.sampled_from(KINDS)), draw(st.integers(0, 7)), draw(st.integers(0, 7))) for _ in range(size)
    ]


def built(plan: Plan) -> Workflow:
    """The workflow; a node that would not fit its inputs adds one."""
    by_name: dict[str, Any] = {
        "add": add, "later": later, "fail": fail, "some": some, "many": many, "ask": ask,
    }  # fmt: skip
    wf = Workflow("random", settings=Settings(on_error="continue"))
    handles = [wf.add(add, id="n0", config={"me": "n0"})]
    scopes: list[tuple[int, ...]] = [()]
    for number, (wanted, first, second) in enumerate(plan, 1):
        kind = wanted
        name = f"n{number}"
        left, right = first % number, second % number
        scope = scopes[left]
        if kind == "join":
            deeper, outer = sorted((left, right), key=lambda index: -len(scopes[index]))
            if scopes[deeper][: len(scopes[outer])] == scopes[outer]:
                handle = wf.add(joined, id=name, config={"me": name})
                wf.connect(handles[left], handle["left"])
                wf.connect(handles[right], handle["right"])
                handles.append(handle)
                scopes.append(scopes[deeper])
                continue
            kind = "add"
        if kind == "sum" and scope:
            handle = wf.add(summed, id=name, config={"me": name})
            scope = scope[:-1]
        else:
            kind = "add" if kind == "sum" else kind
            handle = wf.add(by_name[kind], id=name, config={"me": name})
            scope = (*scope, number) if kind == "many" else scope
        wf.chain(handles[left], handle)
        handles.append(handle)
        scopes.append(scope)
    return wf


def told(result: RunResult) -> tuple[Any, ...]:
    """What must be the same."""
    return (
        result.state.name,
        result.outputs,
        {node: sorted(map(str, errors)) for node, errors in result.errors.items()},
        {node: (outcome.state, outcome.rows, outcome.failed) for node, outcome in result.outcomes.items()},
    )


async def _paused_and_resumed(wf: Workflow, value: int, data: st.DataObject) -> RunResult:
    """Answers in any order, several at once or one by one, in one process or in one each."""
    store = MemoryStore()
    async with runtime(store=store, nodes=NODES) as rt:
        result = await rt.execute(wf, {"n0": {"value": value}})
    while result.waits:
        chosen = data.draw(st.lists(st.sampled_from(result.waits), min_size=1, max_size=3, unique_by=id))
        async with runtime(store=store, nodes=NODES) as rt:
            results = await asyncio.gather(
                *(rt.resume(result.execution_id, answer_to(wait.title), wait=wait.id) for wait in chosen)
            )
            result = min(results, key=lambda each: len(each.waits))
    return result


@settings(max_examples=60, deadline=None)
@given(plan=plans(), value=st.integers(0, 12), data=st.data())
def test_pauses_change_nothing_of_what_comes_out_and_no_call_is_made_twice(
    plan: Plan, value: int, data: st.DataObject
) -> None:
    _compare(plan, value, data)


@pytest.mark.long
@settings(max_examples=1_000, deadline=None)
@given(plan=plans(), value=st.integers(0, 12), data=st.data())
@pytest.mark.timeout(1_200)
def test_the_same_for_many_more(plan: Plan, value: int, data: st.DataObject) -> None:
    _compare(plan, value, data)


def _compare(plan: Plan, value: int, data: st.DataObject) -> None:
    @virtual
    async def compare() -> None:
        wf = built(plan)
        asking = {str(name): answered for name, spec in wf.nodes.items() if spec.type == "pw.ask"}
        CALLS.clear()
        async with runtime(nodes=NODES) as rt:
            at_once = await rt.execute(wf, {"n0": {"value": value}}, replace=asking)
        assert not at_once.waits
        calls = Counter(CALLS)
        CALLS.clear()
        result = await _paused_and_resumed(wf, value, data)
        assert told(result) == told(at_once)
        assert calls == CALLS

    compare()
