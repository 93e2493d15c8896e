"""Bytes in flight: what nodes make of records is charged, and however much that is, memory stays bounded.

Measured is what a test sees itself: bytes a node has made that no sink has written yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from flowcore import Batch, Workflow, node
from flowcore.connector import Assigned, Credit, Position, Revoked, Rows
from flowcore.context import SourceContext
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual

SMALL, LARGE = 1_000, 100_000
MOST = 1_000_000


class Heavy(Script, type="bytes.heavy"):
    """Says how many bytes its rows are, and keeps to its credit in bytes."""

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Any:
        reader: Any = await super().open(partition, resume, ctx)
        read = reader.read

        async def heavy(credit: Credit) -> Rows[Any] | None:
            most = credit.rows if credit.max_bytes is None else max(1, credit.max_bytes // SMALL)
            rows = await read(Credit(min(credit.rows, most)))
            if rows is not None:
                rows.nbytes = sum(len(value) for value in rows.values if isinstance(value, bytes))
            return rows

        reader.read = heavy
        return reader


class Memory:
    """Bytes made and not yet written."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self.at_work = 0
        self.peak_at_work = 0

    def made(self, size: int = LARGE) -> bytes:
        self.now += size
        self.peak = max(self.peak, self.now)
        return bytes(size)

    def sink(self, seconds: float = 1.0) -> Any:
        async def write(batch: Rows[Any]) -> None:
            await asyncio.sleep(seconds)
            self.now -= sum(map(_size, batch.values))

        return kept(write)

    def grow(self, seconds: float = 0.1, size: int = LARGE, name: str = "bytes.grow") -> Any:
        @node(name)
        async def grow(value: Any) -> bytes:
            self.at_work += 1
            self.peak_at_work = max(self.peak_at_work, self.at_work)
            await asyncio.sleep(seconds)
            self.at_work -= 1
            return self.made(size)

        return grow


def _size(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_size, cast("list[Any]", value)))
    return len(value)


async def ran(wf: Workflow, *, records: int = 1_000, source: Any = None) -> tuple[Any, dict[str, int]]:
    async with runtime() as rt:
        given = source or Heavy([[bytes(SMALL)] * records])
        run = await rt.start(wf, sources={"s": given})
        result = await run.wait()
        return result, run.statistics()["budget"]


def chain(*kinds: Any, sink: Any, **settings: Any) -> Workflow:
    """Source `s` -> `n0` -> `n1` ... -> sink `k`; each a node, or a node and its options."""
    wf = Workflow("bytes", settings={"max_bytes": MOST, **settings})
    handles = [wf.add(Heavy, id="s")]
    for index, given in enumerate(kinds):
        kind, options = cast("tuple[Any, dict[str, Any]]", given if isinstance(given, tuple) else (given, {}))
        handles.append(wf.add(kind, id=f"n{index}", **options))
    wf.chain(*handles, wf.add(sink, id="k"))
    return wf


# --- the bound ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ordered", "unordered"])
@virtual
async def test_a_node_that_makes_1_kb_into_100_kb_holds_no_more_than_the_bound_and_what_is_at_work(
    order: str,
) -> None:
    """OPR-16: charged until it is settled, and no more is begun while too much is charged."""
    memory = Memory()
    wf = chain(
        (memory.grow(), {"concurrency": {"max": 4, "order": order}}), sink=memory.sink(), max_in_flight=5_000
    )
    result, budget = await ran(wf)
    assert result.ok
    assert result.records == 1_000
    assert memory.peak <= MOST + 4 * LARGE
    assert MOST < budget["peak_bytes"] <= MOST + 4 * LARGE + SMALL
    assert (budget["in_flight_bytes"], budget["grown_bytes"], budget["in_flight"]) == (0, 0, 0)


@virtual
async def test_without_the_bound_the_same_chain_would_hold_everything() -> None:
    """Else the test above would prove nothing."""
    memory = Memory()
    wf = chain(
        (memory.grow(), {"concurrency": 4}), sink=memory.sink(50.0), max_in_flight=5_000, max_bytes=10**9
    )
    await ran(wf)
    assert memory.peak > 20 * MOST


@virtual
async def test_two_growing_nodes_in_a_row_are_charged_for_one_value_a_row() -> None:
    """The second one's result takes the place of the first one's: a row has one value at a time."""
    memory = Memory()

    @node("bytes.again")
    async def again(value: bytes) -> bytes:
        await asyncio.sleep(0.1)
        return bytes(len(value))

    wf = chain(
        (memory.grow(), {"concurrency": 2}), (again, {"concurrency": 2}), sink=memory.sink(), max_in_flight=50
    )
    result, budget = await ran(wf, records=50)
    assert result.ok
    assert budget["peak_bytes"] <= MOST + 2 * 2 * LARGE + 50 * SMALL
    assert memory.peak >= MOST  # all of the bound is used, not half of it


@virtual
async def test_what_a_plain_function_makes_smaller_again_is_given_back() -> None:
    """Else a few large answers on their way to a slow node would keep all others waiting."""
    memory = Memory()
    slow = Memory()

    @node("bytes.extract")
    def extract(value: bytes) -> bytes:
        memory.now -= len(value)
        return value[:10]

    wf = chain(
        (memory.grow(), {"concurrency": 2}),
        extract,
        (slow.grow(seconds=30.0, size=10, name="bytes.slow"), {"concurrency": 50}),
        sink=kept(),
        max_in_flight=200,
    )
    result, _ = await ran(wf, records=200)
    assert result.ok
    assert slow.peak_at_work == 50
    assert memory.peak <= 4 * LARGE


@virtual
async def test_branches_that_each_make_something_of_a_row_are_both_charged() -> None:
    memory = Memory()
    wf = Workflow("branches", settings={"max_bytes": MOST, "max_in_flight": 5_000})
    wf.add(Heavy, id="s")
    grow = memory.grow()
    sink = memory.sink()
    wf.add(sink, id="k")
    for name in ("left", "right"):
        wf.add(grow, id=name, concurrency=2)
        wf.connect("s", name)
        wf.connect(name, "k")
    result, _ = await ran(wf, records=200)
    assert result.ok
    assert memory.peak <= MOST + 4 * LARGE


@node("bytes.children")
def children(value: bytes) -> Iterator[bytes]:
    for _ in range(60):
        yield MEMORY[0].made()


@node("bytes.drip")
async def drip(value: bytes) -> AsyncIterator[bytes]:
    for _ in range(60):
        await asyncio.sleep(0)
        yield MEMORY[0].made()


MEMORY: list[Memory] = [Memory()]


@pytest.mark.parametrize(
    ("kind", "over"), [(children, 1), ((drip, {"concurrency": 3}), 3)], ids=["sync", "async"]
)
@virtual
async def test_children_are_charged_and_no_more_are_pulled_than_the_bound_allows(
    kind: Any, over: int
) -> None:
    """Beyond it: what was being pulled, and 16 of the oldest record."""
    MEMORY[0] = memory = Memory()
    wf = chain(kind, sink=memory.sink(), max_in_flight=5_000)
    result, budget = await ran(wf, records=20)
    assert result.ok
    assert result.counts["k"].completed == 20 * 60
    assert memory.peak <= MOST + (over + 16) * LARGE
    assert budget["in_flight_bytes"] == 0


@virtual
async def test_children_that_grow_are_bounded_too_and_the_oldest_record_keeps_its_concurrency() -> None:
    memory = Memory()

    @node("bytes.parts")
    def parts(value: bytes) -> Iterator[bytes]:
        for _ in range(200):
            yield b"x"

    wf = chain(
        parts, (memory.grow(seconds=1.0), {"concurrency": 8}), sink=memory.sink(0.01), max_in_flight=5_000
    )
    result, _ = await ran(wf, records=3)
    assert result.ok
    assert result.counts["k"].completed == 600
    assert memory.peak <= MOST + 2 * 8 * LARGE
    assert memory.peak_at_work == 8
    assert now() <= 1.5 * 600 / 8


@node("bytes.all", kind="collect")
def gathered(items: list[bytes]) -> list[bytes]:
    return items


@virtual
async def test_a_list_that_is_being_gathered_is_charged_to_its_record() -> None:
    memory = Memory()

    @node("bytes.five")
    def five(value: bytes) -> Iterator[bytes]:
        for _ in range(5):
            yield b"x"

    wf = chain(
        five, (memory.grow(), {"concurrency": 4}), gathered, sink=memory.sink(2.0), max_in_flight=1_000
    )
    result, budget = await ran(wf, records=60)
    assert result.ok
    assert memory.peak <= MOST + 2 * 4 * LARGE + 5 * LARGE
    assert budget["peak_bytes"] >= MOST
    assert budget["in_flight_bytes"] == 0


# --- it always drains -----------------------------------------------------------------------------------


@virtual
async def test_one_item_larger_than_the_whole_budget_passes_alone() -> None:
    memory = Memory()
    wf = chain((memory.grow(size=5 * MOST), {"concurrency": 4}), sink=memory.sink(), max_in_flight=50)
    result, _ = await ran(wf, records=12)
    assert result.ok
    assert result.records == 12
    assert memory.peak <= (4 + 1) * 5 * MOST


@virtual
async def test_a_batch_that_waits_for_more_rows_is_let_go_when_none_can_come() -> None:
    memory = Memory()

    @node("bytes.pack", kind="batch", batch=Batch(max_items=100))
    def pack(items: list[bytes]) -> list[bytes]:
        return items

    wf = chain((memory.grow(), {"concurrency": 2}), pack, sink=memory.sink(), max_in_flight=1_000)
    result, _ = await ran(wf, records=100)
    assert result.ok
    assert memory.peak <= MOST + 3 * LARGE


@virtual
async def test_a_source_that_has_ended_or_waits_holds_up_nothing() -> None:
    """The pump does not run then: what gathers must be let go all the same."""
    memory = Memory()

    @node("bytes.pack", kind="batch", batch=Batch(max_items=100))
    def pack(items: list[bytes]) -> list[bytes]:
        return items

    quiet = asyncio.Event()

    async def silent() -> None:
        await quiet.wait()

    wf = chain((memory.grow(), {"concurrency": 2}), pack, sink=memory.sink(), max_in_flight=1_000)
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Heavy([[bytes(SMALL)] * 30, silent])})
        while run.live_counts()["k"].completed < 2:
            await asyncio.sleep(1)
            assert now() < 60
        quiet.set()
        assert (await run.wait()).ok


@virtual
async def test_every_partition_has_its_own_oldest_record() -> None:
    """Rows of one that overdraw the budget, and are stuck, keep no other from going on."""
    memory = Memory()
    release = asyncio.Event()

    @node("bytes.hold")
    async def hold(value: bytes) -> bytes:
        if len(value) > LARGE:
            await release.wait()
        return value

    @node("bytes.by_kind")
    async def by_kind(value: bytes) -> bytes:
        return memory.made(LARGE + 1 if value[:1] == b"l" else LARGE)

    wf = chain((by_kind, {"concurrency": 40}), (hold, {"concurrency": 40}), sink=kept(), max_in_flight=1_000)
    source = Heavy(left=[[b"l" * SMALL] * 15], right=[[b"r" * SMALL] * 100])
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        while run.live_counts()["k"].completed < 100:
            await asyncio.sleep(1)
            assert now() < 1_000
        statistics = run.statistics()
        assert statistics["tasks"]["s/left"]["in_flight"] == 15
        assert statistics["budget"]["in_flight_bytes"] > MOST
        release.set()
        assert (await run.wait()).ok


@virtual
async def test_a_partition_that_leaves_gives_back_what_its_rows_were_charged() -> None:
    class Leaving(Heavy, type="bytes.leaving"):
        async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned | Revoked]:
            yield Assigned("a")
            await asyncio.sleep(1)
            yield Revoked("a")
            yield Assigned("b")

    memory = Memory()
    stuck = asyncio.Event()

    async def write(batch: Rows[Any]) -> None:
        del batch
        await stuck.wait()

    wf = chain(children, (memory.grow(), {"concurrency": 4}), sink=kept(write))
    MEMORY[0] = Memory()
    source = Leaving(a=[[bytes(SMALL)] * 5], b=[[bytes(SMALL)]])
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(5)
        assert run.statistics()["budget"]["in_flight_bytes"] > 0
        await run.cancel()
        budget = run.statistics()["budget"]
    assert (budget["in_flight"], budget["in_flight_bytes"], budget["grown_bytes"]) == (0, 0, 0)


# --- what it costs who does not need it -----------------------------------------------------------------


@virtual
async def test_records_alone_may_take_all_of_the_bound_where_nothing_can_grow_and_half_of_it_elsewhere() -> (
    None
):
    """So that there is room for what becomes of them: a full source would hold every node up else."""
    peaks: list[int] = []
    for kind in (same, (Memory().grow(size=0), {"concurrency": 8})):
        wf = chain(kind, sink=Memory().sink(5.0), max_in_flight=5_000)
        _, budget = await ran(wf, records=2_000)
        peaks.append(budget["peak_bytes"])
    assert peaks == [MOST, MOST // 2]


@virtual
async def test_requests_are_never_held_back_by_the_bytes_of_others() -> None:
    memory = Memory()
    wf = Workflow("requests", settings={"max_bytes": MOST})
    wf.add(memory.grow(size=5 * MOST), id="n", concurrency=50)
    async with runtime() as rt:
        results = await asyncio.gather(*(rt.execute(wf, {"n": {"value": b""}}) for _ in range(50)))
    assert all(result.ok for result in results)
    assert now() == pytest.approx(0.1)


@virtual
async def test_a_value_that_is_only_passed_on_is_charged_once() -> None:
    wf = chain(("control.delay", {"config": {"duration": "1s"}}), sink=kept(), max_in_flight=5_000)
    result, budget = await ran(wf, records=100)
    assert result.ok
    assert budget["peak_bytes"] <= 100 * SMALL
