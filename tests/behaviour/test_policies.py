"""Every policy a kind of node accepts is carried out; every other one is refused before anything runs.

The table of what is accepted is the engine's own: a policy that is added there without a test here fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import reactivex
from reactivex import operators as ops

from flowcore import Batch, Workflow, node
from flowcore.connector import Rows
from flowcore.definition import ConnectorDefinition
from flowcore.errors import (
    CircuitOpenError,
    LimitExceededError,
    NodeTimeoutError,
    ValidationFailedError,
)
from flowcore.frame import Record
from flowcore.node import definition_of
from flowcore.operator import operator
from flowcore.policies import POLICY_NAMES
from flowruntime.compile.applicable import accepted, role_of
from tests.behaviour.harness import Script, kept, now, runtime, virtual

BAD = "bad" * 20


class World:
    """What the nodes of one test do and see."""

    def __init__(self) -> None:
        self.seconds: dict[Any, float] = {}
        self.failures: dict[Any, int] = {}
        self.now = 0
        self.peak = 0
        self.sizes: list[int] = []
        self.ended = 0.0

    async def work(self, value: Any) -> Any:
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await asyncio.sleep(self.seconds.get(value, 1.0))
        finally:
            self.now -= 1
            self.ended = now()
        return self.judged(value)

    def judged(self, value: Any) -> Any:
        if value == BAD:
            raise ValueError("bad")
        if self.failures.get(value, 0) > 0:
            self.failures[value] -= 1
            raise ConnectionError("away")
        return value


WORLD = [World()]


@node("pol.fused")
def fused(value: Any) -> Any:
    return WORLD[0].judged(value)


@node("pol.waiting")
async def waiting(value: Any) -> Any:
    return await WORLD[0].work(value)


@node("pol.batched", batch=Batch(max_items=1))
async def batched(values: Sequence[Any]) -> Sequence[Any]:
    WORLD[0].sizes.append(len(values))
    return [await WORLD[0].work(value) for value in values]


@node("pol.expand")
def expand(value: Any) -> Iterator[Any]:
    yield WORLD[0].judged(value)
    yield WORLD[0].judged(value)


@node("pol.dripping")
async def dripping(value: Any) -> AsyncIterator[Any]:
    yield await WORLD[0].work(value)
    yield value


@node("pol.collect", kind="collect")
def collect(items: list[Any]) -> Any:
    return WORLD[0].judged(items[0])


@node("pol.batch", kind="batch", batch=Batch(max_items=1))
def batch(items: list[Any]) -> Any:
    WORLD[0].sizes.append(len(items))
    return WORLD[0].judged(items[0])


Stream = reactivex.Observable[Record[Any]]


@operator("pol.operator", settles="explicit")
def explicit() -> Callable[[Stream], Stream]:
    return lambda source: source.pipe(ops.filter(lambda record: record.value != "silent"))


@operator("pol.entry", settles="on_entry")
def entry() -> Callable[[Stream], Stream]:
    return lambda source: source


async def refuse(batch: Rows[Any]) -> dict[int, Exception]:
    if "flaky" in batch.values:
        await WORLD[0].work("flaky")
    return {index: ValueError("refused") for index, value in enumerate(batch.values) if value == BAD}


class Undecodable(Script, type="pol.source"):
    async def open(self, partition: str, resume: Any, ctx: Any) -> Any:
        reader: Any = await super().open(partition, resume, ctx)
        read = reader.read

        async def marked(credit: Any) -> Rows[Any] | None:
            rows = await read(credit)
            if rows is not None:
                rows.errors = {n: ValueError("bad") for n, value in enumerate(rows.values) if value == BAD}
            return rows

        reader.read = marked
        return reader


NODES: dict[str, Any] = {
    "source": Undecodable,
    "sink": kept(refuse, name="pol.sink"),
    "fused": fused,
    "waiting": waiting,
    "batched": batched,
    "expand": expand,
    "dripping": dripping,
    "collect": collect,
    "batch": batch,
    "operator": explicit,
    "entry": entry,
}


def definition(role: str) -> Any:
    return definition_of(NODES[role]) or NODES[role].__flow_connector__


def flow(role: str, policies: dict[str, Any], **settings: Any) -> Workflow:
    """Source `s`, where it takes one an expanding node `e`, the node `n` of that role, sink `k`."""
    wf = Workflow("policies", settings={"allow_weaker": True, **settings})
    given = cast("Any", policies)
    handles = [wf.add(Undecodable, id="n", **given) if role == "source" else wf.add(Script, id="s")]
    if role == "collect":
        handles.append(wf.add(one_child, id="e"))
    if role not in ("source", "sink"):
        handles.append(wf.add(NODES[role], id="n", **given))
    if role == "sink":
        handles.append(wf.add(NODES[role], id="n", **given))
    else:
        handles.append(wf.add(kept(name="pol.kept"), id="k"))
    wf.chain(*handles)
    return wf


@node("pol.one_child")
def one_child(value: Any) -> Iterator[Any]:
    yield value


async def ran(wf: Workflow, rows: list[Any], world: World | None = None) -> Any:
    WORLD[0] = world or World()

    async def linger() -> None:
        await asyncio.sleep(5)

    source = Script([rows, linger]) if "s" in wf.nodes else Undecodable([rows])
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s" if "s" in wf.nodes else "n": source})
        return await run.wait()


# --- one probe per policy ---------------------------------------------------------------------------------


async def probe_on_error(role: str) -> None:
    others = {"max_output_bytes": 30} if role in ("operator", "entry") else {}
    go_on = await ran(flow(role, {"on_error": "continue", **others}), [BAD, "a"])
    assert go_on.state.name == "partial"
    assert (go_on.records, go_on.counts["n"].failed) == (2, 1)
    stop = await ran(flow(role, {"on_error": "stop_workflow", **others}, on_error="continue"), [BAD, "a"])
    assert stop.state.name == "failed"


async def probe_max_output_bytes(role: str) -> None:
    result = await ran(flow(role, {"max_output_bytes": 30}, on_error="continue"), ["x" * 31, "a"])
    assert [type(error) for error in result.errors["n"]] == [LimitExceededError]


async def probe_concurrency(role: str) -> None:
    world = World()
    assert (await ran(flow(role, {"concurrency": 3}), list(range(9)), world)).ok
    assert world.peak == 3


async def probe_key(role: str) -> None:
    """Rows of one key one after the other, the key read from the row, whatever room there is beside them."""
    world = World()
    policies = {"key": "value == 'a'", "concurrency": {"max": 9, "order": "by_key"}}
    assert (await ran(flow(role, policies), ["a"] * 3 + ["b"] * 3, world)).ok
    assert world.peak == 2
    assert world.ended == 3.0


async def probe_timeout(role: str) -> None:
    world = World()
    world.seconds["slow"] = 5.0
    rows = ["silent"] if role == "operator" else ["slow"]
    result = await ran(flow(role, {"timeout": "2s"}, on_error="continue"), [*rows, "a"], world)
    assert [type(error) for error in result.errors["n"]] == [NodeTimeoutError]


async def probe_retry(role: str) -> None:
    world = World()
    world.failures["flaky"] = 2
    retry = {"max_attempts": 3, "initial": "1s", "jitter": 0.0, "multiplier": 1.0}
    result = await ran(flow(role, {"retry": retry}), ["flaky"], world)
    assert result.ok
    assert result.counts["n"].retried == 2
    assert world.ended == 5.0


async def probe_total_timeout(role: str) -> None:
    world = World()
    world.failures["flaky"] = 9
    retry = {"max_attempts": 9, "initial": "1s", "jitter": 0.0, "multiplier": 1.0, "budget": 9.0}
    policies = {"total_timeout": "4500ms", "retry": retry}
    result = await ran(flow(role, policies, on_error="continue"), ["flaky", "a"], world)
    assert len(result.errors["n"]) == 1
    assert world.ended <= 4.5


async def probe_breaker(role: str) -> None:
    world = World()
    world.failures["flaky"] = 9
    policies = {"breaker": {"failures": 2, "window": 2, "open_for": "60s"}, "concurrency": 1}
    result = await ran(flow(role, policies, on_error="continue"), ["flaky"] * 4, world)
    kinds: list[Any] = [type(error) for error in result.errors["n"]]
    assert kinds == [ConnectionError, ConnectionError, CircuitOpenError, CircuitOpenError]


async def probe_rate(role: str) -> None:
    world = World()
    world.seconds["quick"] = 0.0
    assert (await ran(flow(role, {"rate": 1}), ["quick"] * 4, world)).ok
    assert world.ended == 3.0


async def probe_resource(role: str) -> None:
    world = World()
    settings = {"limits": {"resources": {"gpu": 2}}}
    assert (await ran(flow(role, {"resource": "gpu"}, **settings), list(range(8)), world)).ok
    assert world.peak == 2


async def probe_batch(role: str) -> None:
    world = World()
    assert (await ran(flow(role, {"batch": 4}), ["a"] * 8, world)).ok
    assert world.sizes == [4, 4]


async def probe_max_children(role: str) -> None:
    result = await ran(flow(role, {"max_children": 1}, on_error="continue"), ["a"])
    assert [type(error) for error in result.errors["n"]] == [LimitExceededError]


PROBES: dict[str, Callable[[str], Awaitable[None]]] = {
    name.removeprefix("probe_"): probe for name, probe in list(globals().items()) if name.startswith("probe_")
}
ACCEPTED = [(role, policy) for role in NODES for policy in sorted(accepted(definition(role)))]
REFUSED = [(role, policy) for role in NODES for policy in POLICY_NAMES if (role, policy) not in ACCEPTED]
SOME: dict[str, Any] = {
    "key": "value",
    "concurrency": 3,
    "timeout": "2s",
    "retry": {"max_attempts": 2},
    "on_error": "continue",
    "batch": 2,
    "total_timeout": "2s",
    "breaker": {"failures": 2},
    "rate": 1,
    "resource": "gpu",
    "max_children": 3,
    "max_output_bytes": 30,
}


@pytest.mark.parametrize(("role", "policy"), ACCEPTED)
@virtual
async def test_what_is_accepted_is_carried_out(role: str, policy: str) -> None:
    await PROBES[policy](role)


@pytest.mark.parametrize(("role", "policy"), REFUSED)
async def test_what_would_have_no_effect_is_refused_with_what_to_do(role: str, policy: str) -> None:
    wf = flow(role, {policy: SOME[policy]}, limits={"resources": {"gpu": 1}})
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError) as caught:
            rt.validate(wf)
    (problem,) = [each for each in caught.value.problems if each.path == f"nodes.n.{policy}"]
    assert f"{policy} does not apply to" in problem.message
    assert problem.remedy


def test_every_kind_of_node_there_is_has_a_place_in_these_tables() -> None:
    assert {role_of(definition(role)) for role in NODES} == set(NODES)
    assert set(PROBES) == set(SOME) == set(POLICY_NAMES)
    assert isinstance(definition("source"), ConnectorDefinition)
