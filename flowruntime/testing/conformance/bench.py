"""A chain on the test bench: real operators, kernel and edges, fed by hand, every edge watched.

Owns: `Bench`, `Watch`, `feed`. Does not own: what must hold (flowruntime.testing.conformance.operator).

Always holds: what is fed keeps the cover rule itself; a watch sees every item of its edge in the order of
emission.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from flowcore.context import LogLevel
from flowcore.errors import RunError
from flowcore.frame import END, Barrier, Failure, Frame, Opened, Signal, Watermark
from flowcore.workflow import Workflow
from flowruntime.compile.chain import Chain, Program
from flowruntime.compile.lower import lower
from flowruntime.compile.plan import Stage
from flowruntime.compile.validate import validate
from flowruntime.events.bus import EventBus
from flowruntime.execute.context import Services
from flowruntime.execute.execution import Execution
from flowruntime.execute.paths import PathGuard
from flowruntime.execute.secrets import SecretStore
from flowruntime.execute.worker import Worker
from flowruntime.models.gateway import Gateway
from flowruntime.operators.base import StageOperator
from flowruntime.operators.kernel import Kernel
from flowruntime.registry import Registry
from flowruntime.resilience.resources import Resources
from flowruntime.testing.contexts import NoHttp
from flowruntime.testing.running import with_collected, with_letters
from flowruntime.testing.virtual import wall_clock

Item = Frame[Any] | Signal


class Watch:
    """What left on one edge."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.name = f"edge {number} of {stage.kind} {stage.id!r}"
        self.kind = stage.kind
        self.items: list[Item] = []
        self.threads: set[int] = set()

    def __call__(self, item: Item) -> None:
        self.items.append(item)
        self.threads.add(threading.get_ident())

    @property
    def frames(self) -> list[Frame[Any]]:
        return [item for item in self.items if isinstance(item, Frame)]

    @property
    def ends(self) -> int:
        return sum(item == END for item in self.items)


class Bench:
    """One chain of a workflow with one source, on the running loop; use it as an async context.

    Args:
        workflow: its declared source is never opened; its sinks are collected.
        recording: as for requests.
    """

    chain: Chain
    kernel: Kernel
    worker: Worker

    def __init__(self, workflow: Workflow, *, recording: bool = False) -> None:
        self.workflow = workflow
        self.recording = recording
        self.watches: list[Watch] = []
        self.crashes: list[BaseException] = []
        self.stopped: list[Failure] = []
        self.failures: list[Failure] = []
        self.settled_rows: dict[Opened, list[int]] = {}
        self.roots: list[Opened] = []
        self.order: dict[tuple[Opened, int], int] = {}
        """When each root row was fed."""
        self.signals: list[tuple[Signal, int]] = []
        """Each signal, and how many rows had been fed before it."""
        self.in_flight = 0
        self._quiet = asyncio.Event()
        self._models: Gateway | None = None

    async def __aenter__(self) -> Self:
        graph, self.sinks = with_collected(validate(self.workflow, Registry(), mode="stream"), {})
        graph, self.letters = with_letters(graph)
        self.source = next(node_id for node_id, node in graph.nodes.items() if node.role == "source")
        plan = lower(graph, mode="stream", sources=[self.source])
        clock = wall_clock()
        self.bus = EventBus(clock=clock)
        services = self._services = Services(
            bus=self.bus,
            clock=clock,
            http=NoHttp,
            secrets=SecretStore({}),
            paths=PathGuard(()),
            models=self._gateway,
            log=_log,
            new_id=map("letter {}".format, itertools.count()).__next__,
        )
        self.worker = Worker(graph, services, {}, Resources(self.bus), graph.name, captures=False, seed=0)
        await self.worker.start()
        self.kernel = Kernel(plan, self.worker, self, recording=self.recording, task="bench/0")
        self.chain = Chain(Program(plan), self.kernel, self.worker)
        for index, operator in self.chain.operators.items():
            for number, edge in enumerate(operator.edges):
                watch = Watch(plan.stages[index], number)
                edge.observable().subscribe(watch)
                self.watches.append(watch)
        self.scope = plan.entries[0].scope
        return self

    def _gateway(self) -> Gateway:
        if self._models is None:
            self._models = Gateway(self._services, folder=None, factories={}, prices={}, seed=0)
        return self._models

    async def __aexit__(self, *_: object) -> None:
        self.chain.close()
        await self.worker.aclose()
        if self._models is not None:
            await self._models.aclose()
        await self.bus.aclose()

    @property
    def operators(self) -> list[StageOperator]:
        return list(self.chain.operators.values())

    def operators_of(self, kind: str) -> list[StageOperator]:
        """The operators of one stage kind."""
        return [operator for operator in self.operators if operator.stage.kind == kind]

    # --- feeding ------------------------------------------------------------------------------------------

    def open(self, values: Sequence[Any], keys: Sequence[object] | None = None) -> Opened:
        """A frame as the source would open it."""
        opened = self.kernel.open_root(self.scope, len(values), records=list(values), keys=keys)
        opened.executions = {}
        self.worker.budget.charge(len(values))
        self.in_flight += len(values)
        self.roots.append(opened)
        self._quiet.clear()
        return opened

    def push(self, frame: Frame[Any]) -> None:
        """One part into the chain."""
        for row in frame.covered:
            self.order[frame.opened, row] = len(self.order)
        self.chain.entries[self.source].emit(frame)

    def signal(self, signal: Signal) -> None:
        """A signal into the chain."""
        self.signals.append((signal, len(self.order)))
        self.chain.entries[self.source].emit(signal)

    async def finish(self) -> None:
        """End the input and wait until every row is settled and nothing is under way."""
        self.signal(END)
        while self.in_flight and not self.crashes:
            await self._quiet.wait()
        for writer in self.worker.writers.values():
            await writer.flush()
        await asyncio.sleep(60)

    # --- what the chain tells -----------------------------------------------------------------------------

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        self.settled_rows.setdefault(opened, []).extend(rows)
        self.worker.budget.release(len(rows))
        self.in_flight -= len(rows)
        if self.in_flight == 0:
            self._quiet.set()

    def leave(self, opened: Opened, row: int) -> bool:
        """A bench has no next run."""
        del opened, row
        return False

    def again(self, failure: Failure, opened: Opened, row: int) -> bool:
        """A bench has no policies that retry a workflow."""
        del failure, opened, row
        return False

    def stop(self, failure: Failure, opened: Opened, row: int) -> None:
        del opened, row
        self.stopped.append(failure)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)
        self._quiet.set()

    def execution(self, opened: Opened, row: int) -> Execution:
        execution = opened.executions.get(row)
        if execution is None:
            execution = opened.executions[row] = Execution(
                f"{opened.seq}.{row}", self.worker.services.clock()
            )
        return execution


def _log(message: str, level: LogLevel, fields: Mapping[str, object]) -> None:
    """The bench has no log: whatever matters is asserted."""


def feed(chance: random.Random, opened: Opened, values: Sequence[Any]) -> Iterator[Frame[Any]]:
    """A frame in parts, as a stage before might emit it: each row there, dropped or failed, covered once."""
    if chance.random() < 0.3:  # noqa: PLR2004 - the fast path, often enough
        yield Frame(opened, list(values))
        return
    part_of = [chance.randrange(3) for _ in values]
    for part in chance.sample(range(3), 3):
        covers = [row for row, its in enumerate(part_of) if its == part]
        if covers:
            yield _part(chance, opened, values, covers)


def _part(chance: random.Random, opened: Opened, values: Sequence[Any], covers: list[int]) -> Frame[Any]:
    rows: list[int] = []
    failed: dict[int, Failure] = {}
    for row in covers:
        fate = chance.choice(("there", "there", "there", "dropped", "failed"))
        if fate == "there":
            rows.append(row)
        elif fate == "failed":
            failed[row] = Failure("rows", RunError(f"row {row} failed before"))
    there = [values[row] for row in rows]
    if len(covers) == opened.size:
        return Frame(opened, there, None if len(rows) == opened.size else rows, None, failed or None)
    return Frame(opened, there, rows, covers, failed or None)


async def feed_all(
    bench: Bench, chance: random.Random, values: Sequence[Any], *, key: Any = None, signals: bool = True
) -> None:
    """Push `values` in frames of random sizes, parts, pauses and, when wanted, signals."""
    rest = list(values)
    epoch = 0
    while rest:
        size = chance.randint(1, 6)
        now, rest = rest[:size], rest[size:]
        opened = bench.open(now, None if key is None else [key(value) for value in now])
        for part in feed(chance, opened, now):
            bench.push(part)
            if signals and chance.random() < 0.15:  # noqa: PLR2004 - some of each
                bench.signal(Watermark(float(len(bench.order))))
            if signals and chance.random() < 0.15:  # noqa: PLR2004 - some of each
                epoch += 1
                bench.signal(Barrier(epoch))
            if chance.random() < 0.3:  # noqa: PLR2004 - some of each
                await asyncio.sleep(chance.choice((0, 0, 0.5, 2)))
