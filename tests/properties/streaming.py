"""A story of streams per seed: who makes them, who reads how much of them, what goes wrong and when.

Owns: `play`, which runs the story of a seed as a stream and as requests and returns what was wrong.
Does not own: the instruments (tests.properties.instruments), workflows without streams (scenario).

The promise under test: each row is covered and settled exactly once; each producer that was begun is closed,
each `on_close` awaited once, each stream over; nothing waits for ever, nothing is left running.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

from flowcore import Batch, BatchContext, NodeContext, RetryPolicy, Stream, Workflow, node
from flowcore.errors import ValidationFailedError
from flowcore.states import Cancelled, Completed, Failed, Partial
from flowcore.values import streams_in
from flowruntime.compile.lower import lower
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.virtual import run_virtual, wall_clock
from tests.behaviour.harness import Script, kept
from tests.properties.instruments import Watch

_MS = 0.001
_HANGS_S = 100.0
"""Virtual seconds no story takes."""


class Made:
    """Every stream of a story, and what became of it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.begun: Counter[int] = Counter()
        self.closed: Counter[int] = Counter()
        self.released: Counter[int] = Counter()
        self.count = 0
        self.live: list[Any] = []

    def stream(self, make: Callable[..., Any], **options: Any) -> Any:
        """A stream with a fate of its own."""
        number, self.count = self.count, self.count + 1
        length = self.chance.choice((0, 1, 3, 10, 5_000))
        fails_at = self.chance.choice((None, None, None, 0, 2))
        pause_s = self.chance.choice((0.0, 0.0, 1.0, 3.0)) * _MS
        closing_s = self.chance.choice((0.0, 0.0, 2.0)) * _MS

        async def items() -> AsyncIterator[str]:
            self.begun[number] += 1
            try:
                for place in range(length):
                    if pause_s or place % 10 == 0:
                        await asyncio.sleep(pause_s)
                    if place == fails_at:
                        raise ValueError(f"stream {number} broke")
                    yield f"{number}.{place}"
            finally:
                self.closed[number] += 1
                if closing_s:
                    await asyncio.sleep(closing_s)

        async def release() -> None:
            self.released[number] += 1

        capacity = self.chance.choice((1, 2, 64))
        stream = make(items(), capacity=capacity, on_close=release, **options)
        self.live.append(stream)
        return stream

    def faults(self) -> list[str]:
        """What was not closed, or twice."""
        numbers = range(self.count)
        return [
            f"stream {number}: begun {self.begun[number]}, closed {self.closed[number]}, released "
            f"{self.released[number]}, {self.live[number]!r}"
            for number in numbers
            if self.begun[number] != self.closed[number]
            or self.begun[number] > 1
            or self.released[number] != 1
            or not self.live[number].production.is_over
        ]


def story(seed: int) -> tuple[Made, Workflow, random.Random]:
    """The workflow of a seed, fed at `start`."""
    chance = random.Random(seed)
    made = Made(chance)
    settings: dict[str, Any] = {
        "on_error": "stop_workflow" if chance.random() < 0.1 else "continue",
        "max_children": chance.choice((5, 1_000)),
        "max_frame": chance.choice((1, 3, 100)),
        "commit_interval": "3ms",
    }
    if chance.random() < 0.4:
        settings["max_in_flight"] = chance.choice((2, 5))
    if chance.random() < 0.2:
        settings["max_bytes"] = chance.choice((50, 1_000))
    if chance.random() < 0.3:
        settings["max_parallel"] = chance.choice((1, 2))
    wf = Workflow("streaming", settings=settings)
    start = wf.add(Script, id="start")
    last = _connected(wf, start, wf.add(_maker(made, chance), id="make"))
    for index in range(chance.randrange(3)):
        last = _connected(wf, last, wf.add(_between(made, chance, str(index)), id=f"between{index}"))
    for index in range(chance.choice((1, 1, 2, 2, 3))):
        last_here = last
        for depth in range(chance.choice((0, 0, 1, 1, 2))):
            after = _after(chance, f"{index}{depth}")
            waits = callable(after) or after == "stream.collect"
            options: dict[str, Any] = (
                {"timeout": f"{chance.randrange(1, 20)}ms"} if waits and chance.random() < 0.2 else {}
            )
            last_here = _connected(wf, last_here, wf.add(after, id=f"after{index}_{depth}", **options))
        if chance.random() < 0.4:
            _connected(wf, last_here, wf.add(kept(name=f"story.kept{index}"), id=f"sink{index}"))
    return made, wf, chance


def _connected(wf: Workflow, before: Any, after: Any) -> Any:
    wf.connect(before, after)
    return after


# --- nodes; declared `Any`, so that what validation would refuse is met at run time -----------------------


def _maker(made: Made, chance: random.Random) -> Any:
    """A node that makes streams, of each kind of stage."""

    @node("story.waits", retry=RetryPolicy(max_attempts=2, initial=timedelta(0), retry_on=("OSError",)))
    async def waits(value: Any, ctx: NodeContext) -> Any:
        del value
        await asyncio.sleep(made.chance.randrange(4) * _MS)
        stream = made.stream(ctx.stream)
        if made.chance.random() < 0.1:
            raise OSError("the maker broke")
        return stream if made.chance.random() < 0.8 else {"inside": [stream]}

    @node("story.fused")
    def fused(value: Any, ctx: NodeContext) -> Any:
        del value
        stream = made.stream(ctx.stream)
        return stream.share(made.chance.choice((1, 3, 1000))) if made.chance.random() < 0.6 else stream

    @node("story.expands")
    def expands(value: Any, ctx: NodeContext) -> Iterator[Any]:
        del value
        for _ in range(made.chance.randrange(4)):
            yield made.stream(ctx.stream)

    @node("story.drips")
    async def drips(value: Any, ctx: NodeContext) -> AsyncIterator[Any]:
        del value
        for _ in range(made.chance.randrange(4)):
            await asyncio.sleep(made.chance.randrange(3) * _MS)
            yield made.stream(ctx.stream)

    @node("story.batched", batch=Batch(max_items=3))
    async def batched(values: Sequence[Any], ctx: BatchContext) -> Sequence[Any]:
        await asyncio.sleep(made.chance.randrange(3) * _MS)
        return [made.stream(ctx.stream, row=row) for row in range(len(values))]

    return chance.choice((waits, waits, fused, fused, expands, drips, batched))


def _between(made: Made, chance: random.Random, name: str) -> Any:
    """A node that passes streams on, or others made of them."""

    @node(f"story.wraps{name}")
    def wraps(value: Any, ctx: NodeContext) -> Any:
        async def items() -> AsyncIterator[Any]:
            async for item in value:
                yield item

        return ctx.stream(items()) if isinstance(value, Stream) else value

    @node(f"story.shares{name}")
    def shares(value: Any) -> Any:
        return cast("Stream[Any]", value).share(3) if isinstance(value, Stream) else value

    @node(f"story.peeks{name}")
    async def peeks(value: Any, ctx: NodeContext) -> Any:
        if not isinstance(value, Stream):
            return value
        reader = aiter(cast("Stream[Any]", value))
        await anext(reader, None)

        async def rest() -> AsyncIterator[Any]:
            async for item in reader:
                yield item

        return ctx.stream(rest())

    others = _passing(made, name)
    return chance.choice((wraps, wraps, shares, peeks, *others, "control.collect", "control.batch"))


def _passing(made: Made, name: str) -> tuple[Any, ...]:
    """Nodes that know nothing of streams."""

    @node(f"story.drops{name}", kind="filter")
    def drops(value: Any) -> bool:
        del value
        return made.chance.random() < 0.7

    @node(f"story.later{name}")
    async def later(value: Any) -> Any:
        await asyncio.sleep(made.chance.randrange(3) * _MS)
        return value

    return drops, later


def _after(chance: random.Random, name: str) -> Any:
    """A node that reads: all, some, or nothing."""

    @node(f"story.reads{name}", concurrency=chance.choice((1, 4)))
    async def reads(value: Any) -> Any:
        given = cast("list[Any]", value) if isinstance(value, list) else [value]
        streams: list[Stream[Any]] = [each for each in given if isinstance(each, Stream)]
        most = chance.choice((0, 1, 2, 20, 200))
        found: list[Any] = []
        for stream in streams:
            reader = aiter(stream)
            while len(found) < most:
                item = await anext(reader, None)
                if item is None:
                    break
                found.insert(len(found), item)
                if chance.random() < 0.1:
                    raise ValueError("the reader broke")
            if chance.random() < 0.1:
                stream.cancel()
        return found

    return chance.choice(
        (reads, reads, reads, "stream.split", "stream.collect", "control.collect", "debug.log")
    )


# --- playing ----------------------------------------------------------------------------------------------


async def _left_over() -> list[str]:
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return [f"task {task.get_name()} is left" for task in others if task.get_name().startswith("flow ")]


def _runtime(seed: int) -> FlowRuntime:
    runtime = FlowRuntime(watchdog=None, state_dir=None, clock=wall_clock(), seed=seed)
    runtime._services.log = _silent
    return runtime


def _silent(*_: object) -> None:
    """What producers fail with while they are closed is part of the story."""


async def play_stream(seed: int) -> list[str]:
    """A continuous run, cut short in half of the stories."""
    made, wf, chance = story(seed)
    source = Script([list(range(chance.choice((1, 4, 12))))])
    action = chance.choice((None, None, None, "stop", "stop_now", "cancel", "drain", "aclose"))
    with Watch() as watch:
        async with _runtime(seed) as runtime, asyncio.timeout(_HANGS_S):
            if not _is_possible(runtime, wf):
                return []
            run = await runtime.start(wf, sources={"start": source})
            await asyncio.sleep(chance.randrange(30) * _MS)
            ends: dict[str | None, Callable[[], Any]] = {
                "stop": run.stop,
                "stop_now": lambda: run.stop(timedelta(0)),
                "cancel": run.cancel,
                "drain": run.drain,
                "aclose": runtime.aclose,
                None: run.wait,
            }
            await ends[action]()
            result = await run.wait()
    faults = watch.faults + watch.permits_returned() + made.faults() + await _left_over()
    if isinstance(result.state, Completed | Partial) and not result.abandoned:
        faults += watch.all_settled()
    if isinstance(result.state, Completed) and any(counts.failed for counts in result.counts.values()):
        faults.append("completed, though rows have failed")
    return faults


async def play_requests(seed: int) -> list[str]:
    """Requests at once; some cancelled, some with little time."""
    made, wf, chance = story(seed)
    faults: list[str] = []

    async def one(runtime: FlowRuntime, index: int) -> None:
        await asyncio.sleep(chance.randrange(10) * _MS)
        fate = chance.choice(("run", "run", "cancel", "timeout"))
        timeout = timedelta(seconds=chance.randrange(1, 20) * _MS) if fate == "timeout" else None
        asked = asyncio.create_task(runtime.execute(wf, {"start": {"out": index}}, timeout=timeout))
        if fate == "cancel":
            await asyncio.sleep(chance.randrange(20) * _MS)
            begun = asyncio.get_running_loop().time()
            asked.cancel()
            await asyncio.wait({asked})
            if asyncio.get_running_loop().time() - begun > 0.05:
                faults.append(f"request {index} took longer than 50 ms to be cancelled")
            if asked.cancelled():
                return
        result = await asked
        if (
            isinstance(result.state, Cancelled | Failed)
            and fate == "run"
            and wf.settings.on_error == "continue"
        ):
            faults.append(f"request {index} is {result.state}, though nobody stopped it")
        if streams_in(result.outputs):
            faults.append(f"request {index} has a live stream in its outputs")
        if result.ok != (not result.errors and isinstance(result.state, Completed)):
            faults.append(f"request {index} is {result.state} with errors {result.errors}")

    with Watch() as watch:
        async with _runtime(seed) as runtime, asyncio.timeout(_HANGS_S):
            if not _is_possible(runtime, wf):
                return []
            async with asyncio.TaskGroup() as group:
                for index in range(chance.choice((1, 3, 8))):
                    group.create_task(one(runtime, index), name=f"caller {index}")
            faults += watch.all_settled()
    return faults + watch.faults + watch.permits_returned() + made.faults() + await _left_over()


def _is_possible(runtime: FlowRuntime, wf: Workflow) -> bool:
    """Some stories make no workflow, such as one that collects what nothing has split."""
    try:
        lower(runtime.validate(wf), mode="stream")
    except ValidationFailedError:
        return False
    return True


def play(seed: int) -> list[str]:
    """Everything that was wrong in the story of a seed; a hang is wrong, too."""
    faults: list[str] = []
    for tell in (play_stream, play_requests):
        try:
            faults += [f"{tell.__name__}: {fault}" for fault in run_virtual(tell(seed), seed=seed)]
        except Exception as error:  # noqa: BLE001 - whatever escaped is a finding
            faults.append(f"{tell.__name__}: {type(error).__name__}: {error}")
    return faults
