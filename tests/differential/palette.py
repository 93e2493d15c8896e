"""The nodes of random workflows: pure functions of their tag and inputs, which a reference can call, too.

Owns: `PALETTE`, the expressions of conditions, the world outside (`Outside`: source rows, written rows).
Does not own: how they are put together (generate), what must come out (reference).

Always holds: a value tells where it came from (its `n` is a hash of the tags and values on its way), so that
two rows that were mixed up never look alike.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import msgspec

from flowcore.connector import Credit, Position, Rows, Sink, Source
from flowcore.context import NodeContext, SourceContext
from flowcore.definition import Gather
from flowcore.node import Node, Outputs, node
from flowcore.policies import Batch, Concurrency, RetryPolicy
from flowruntime.testing.letters import CollectedLetters

_MS = timedelta(milliseconds=1)

# --- values ---------------------------------------------------------------------------------------------


def canonical(value: Any) -> Any:
    """What counts of a value: of an error record its node and record, not the message."""
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value)
        if "error" in value and "attempts" in value:
            return ("error", value["node"], canonical(value["record"]))
        return tuple(sorted((key, canonical(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(canonical(item) for item in cast("list[Any]", value))
    return value


def mixed(tag: str, *values: Any) -> int:
    """A number that depends on everything that went in."""
    return zlib.crc32(repr((tag, canonical(values))).encode())


def made(number: int) -> Any:
    """A value for expressions and paths to look into; sometimes null, sometimes without `m`."""
    if number % 17 == 0:
        return None
    value: dict[str, Any] = {"n": number}
    if number % 13:
        value["m"] = {"k": number % 5}
    return value


def record_of(number: int) -> Any:
    """A source record."""
    return {"n": mixed("record", number), "id": number, "m": {"k": number % 5}}


class PaletteError(Exception):
    """What failing nodes raise."""


class FlakyError(ConnectionError):
    """What a retry repeats."""


def work(tag: str, fail: int, *values: Any) -> int:
    """The hash, or the failure it stands for."""
    number = mixed(tag, *values)
    if fail and number % fail == 0:
        raise PaletteError(f"{tag} fails on {number}")
    return number


async def wait(number: int) -> None:
    """A latency that depends on the value; sometimes none at all."""
    if number % 4:
        await asyncio.sleep((number >> 8) % 7 * 0.001)


# --- the reference's view: what each kind of node computes, synchronously -------------------------------


def ref_map(tag: str, fail: int, *values: Any) -> Any:
    return made(work(tag, fail, *values))


def ref_retry(tag: str, fail: int, *values: Any) -> Any:
    number = work(tag, fail, *values)
    if number % 4 == 3:
        raise FlakyError(tag)
    return made(number)


def ref_by_key(tag: str, fail: int, *values: Any) -> Any:
    if not isinstance(values[0]["n"], int):
        raise PaletteError("no key")
    return made(work(tag, fail, *values))


def ref_filter(tag: str, fail: int, *values: Any) -> bool:
    return work(tag, fail, *values) % 3 != 0


def ref_expand(tag: str, fail: int, *values: Any) -> Iterator[Any]:
    number = mixed(tag, *values)
    for index in range(number % 4):
        yield made(mixed(tag, number, index))
    if fail and number % fail == 0:
        raise PaletteError(f"{tag} breaks off after {number % 4}")


def ref_split(tag: str, fail: int, *values: Any) -> dict[str, Any]:
    number = work(tag, fail, *values)
    ports = {0: (), 1: ("left",), 2: ("right",), 3: ("left", "right")}[number % 4]
    return {port: made(mixed(port, number)) for port in ports}


def ref_either(tag: str, fail: int, *values: Any) -> dict[str, Any]:
    number = work(tag, fail, *values)
    return {"left" if number % 2 else "right": made(mixed("either", number))}


# --- nodes ----------------------------------------------------------------------------------------------


@node("case.one")
def one(a: Any, *, tag: str, fail: int = 0) -> Any:
    return ref_map(tag, fail, a)


@node("case.two")
def two(a: Any, b: Any, *, tag: str, fail: int = 0) -> Any:
    return ref_map(tag, fail, a, b)


@node("case.maybe")
def maybe(a: Any, b: Any = None, *, tag: str, fail: int = 0) -> Any:
    return ref_map(tag, fail, a, b)


@node("case.gather")
def gather(items: Gather[Any], *, tag: str, fail: int = 0) -> Any:
    return ref_map(tag, fail, items)


@node("case.keep", kind="filter")
def keep(a: Any, *, tag: str, fail: int = 0) -> bool:
    return ref_filter(tag, fail, a)


@node("case.keep_two", kind="filter")
def keep_two(a: Any, b: Any, *, tag: str, fail: int = 0) -> bool:
    return ref_filter(tag, fail, a, b)


@node("case.slow")
async def slow(a: Any, *, tag: str, fail: int = 0) -> Any:
    await wait(mixed(tag, a))
    return ref_map(tag, fail, a)


@node("case.slow_two", concurrency=2)
async def slow_two(a: Any, b: Any, *, tag: str, fail: int = 0) -> Any:
    await wait(mixed(tag, a, b))
    return ref_map(tag, fail, a, b)


@node("case.slow_gather")
async def slow_gather(items: Gather[Any], *, tag: str, fail: int = 0) -> Any:
    await wait(mixed(tag, items))
    return ref_map(tag, fail, items)


@node("case.unordered", concurrency=Concurrency(max=3, order="unordered"))
async def unordered(a: Any, *, tag: str, fail: int = 0) -> Any:
    await wait(mixed(tag, a))
    return ref_map(tag, fail, a)


@node("case.by_key", concurrency=Concurrency(max=3, order="by_key"), key="value.n % 3")
async def by_key(a: Any, *, tag: str, fail: int = 0) -> Any:
    await wait(mixed(tag, a))
    return ref_by_key(tag, fail, a)


@node("case.slow_keep", kind="filter", concurrency=2)
async def slow_keep(a: Any, *, tag: str, fail: int = 0) -> bool:
    await wait(mixed(tag, a))
    return ref_filter(tag, fail, a)


@node("case.retried", retry=RetryPolicy(initial=_MS, max_attempts=3, jitter=0.0, budget=1_000.0))
async def retried(a: Any, ctx: NodeContext, *, tag: str, fail: int = 0) -> Any:
    number = work(tag, fail, a)
    await wait(number)
    if ctx.attempt <= number % 4:
        raise FlakyError(tag)
    return made(number)


@node("case.cancels", concurrency=2)
async def cancels(a: Any, *, tag: str, fail: int = 0) -> Any:
    """Fails the way a library does that cancels itself."""
    await wait(mixed(tag, a))
    try:
        return ref_map(tag, fail, a)
    except PaletteError:
        raise asyncio.CancelledError from None


@node("case.batched", batch=Batch(max_items=3), concurrency=2)
async def batched(items: Sequence[Any], *, tag: str, fail: int = 0) -> list[Any]:
    await wait(sum(mixed(tag, item) for item in items))
    return [_or_error(tag, fail, item) for item in items]


@node("case.lingering", batch=Batch(max_items=4, linger=_MS), concurrency=1)
async def lingering(items: Sequence[Any], others: Sequence[Any], *, tag: str, fail: int = 0) -> list[Any]:
    await wait(mixed(tag, items[0]))
    return [_or_error(tag, fail, *pair) for pair in zip(items, others, strict=True)]


def _or_error(tag: str, fail: int, *values: Any) -> Any:
    try:
        return ref_map(tag, fail, *values)
    except PaletteError as error:
        return error


@node("case.thread", offload="thread", concurrency=2)
def thread(a: Any, *, tag: str, fail: int = 0) -> Any:
    time.sleep(0)
    return ref_map(tag, fail, a)


@node("case.many")
def many(a: Any, *, tag: str, fail: int = 0) -> Iterator[Any]:
    yield from ref_expand(tag, fail, a)


@node("case.slow_many", concurrency=2)
async def slow_many(a: Any, *, tag: str, fail: int = 0) -> AsyncIterator[Any]:
    for item in ref_expand(tag, fail, a):
        await wait(mixed(tag, item))
        yield item


@node("case.collect", kind="collect")
def collect(items: list[Any], *, tag: str, fail: int = 0) -> Any:
    return ref_map(tag, fail, items)


@node("case.collect_any", kind="collect")
def collect_any(items: list[Any], *, tag: str, fail: int = 0) -> Any:
    return ref_map(tag, fail, sorted(items, key=repr))


class TagConfig(msgspec.Struct, frozen=True, kw_only=True):
    tag: str
    fail: int = 0


class OneIn(msgspec.Struct):
    a: Any


class Sides(Outputs):
    left: Any = msgspec.UNSET
    right: Any = msgspec.UNSET


@node("case.split")
def split(a: Any, *, tag: str, fail: int = 0) -> Sides:
    return Sides(**ref_split(tag, fail, a))


class Either(Node[TagConfig, OneIn, Sides], type="case.either", exclusive_outputs=True):
    def execute(self, inputs: OneIn, ctx: NodeContext) -> Sides:
        del ctx
        return Sides(**ref_either(self.config.tag, self.config.fail, inputs.a))


class SlowClass(Node[TagConfig, OneIn, Sides], type="case.slow_split"):
    async def execute(self, inputs: OneIn, ctx: NodeContext) -> Sides:
        del ctx
        await wait(mixed(self.config.tag, inputs.a))
        return Sides(**ref_split(self.config.tag, self.config.fail, inputs.a))


# --- the world outside ----------------------------------------------------------------------------------


@dataclass
class Outside:
    """What the sources give and the sinks were given; kept between a run and its restart."""

    records: Sequence[int] = ()
    undecodable: frozenset[int] = frozenset()
    position: int = 0
    written: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    refused: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    commits: list[int] = field(default_factory=list[int])
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    slow_source: bool = False
    slow_sinks: bool = False
    sink_failures: float = 0.0
    """Share of writes that raise, and of rows refused one by one."""
    on_commit: Callable[[int], None] = lambda _: None
    letters: CollectedLetters = field(default_factory=CollectedLetters)


OUTSIDE: ContextVar[Outside] = ContextVar("outside")


class NoConfig(msgspec.Struct, frozen=True):
    pass


class CaseSource(Source[NoConfig, Any], type="case.source"):
    """Gives `Outside.records`, and keeps its committed position there."""

    positions = "own"

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> CaseReader:
        del partition, resume, ctx
        return CaseReader(OUTSIDE.get())


class CaseLetters(Sink[NoConfig, Any], type="case.letters"):
    """Where the dead letters of a case go: `Outside.letters`."""

    @classmethod
    def dead_letters(cls, config: NoConfig) -> CollectedLetters:
        del config
        return OUTSIDE.get().letters

    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        raise NotImplementedError


class CaseReader:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._at = outside.position

    async def read(self, credit: Credit) -> Rows[Any] | None:
        outside, chance = self._outside, self._outside.chance
        if outside.slow_source and chance.random() < 0.5:
            await asyncio.sleep(chance.randrange(8) * 0.001)
        count = min(credit.rows, chance.randint(1, 5), len(outside.records) - self._at)
        if count <= 0:
            return None
        first, self._at = self._at, self._at + count
        return Rows(
            [record_of(number) for number in outside.records[first : self._at]],
            next=self._at,
            positions=list(range(first + 1, self._at + 1)),
            errors={
                index: PaletteError("undecodable")
                for index in range(count)
                if first + index in outside.undecodable
            },
        )

    async def commit(self, position: Any) -> None:
        self._outside.on_commit(position)
        self._outside.commits.append(position)
        self._outside.position = position

    async def close(self) -> None:
        pass


class CaseSink(Sink[TagConfig, Any], type="case.sink"):
    """Keeps what it is given in `Outside.written`."""

    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        outside = OUTSIDE.get()
        chance = outside.chance
        if outside.slow_sinks:
            await asyncio.sleep(chance.randrange(6) * 0.002)
        refused = {
            index: PaletteError("refused")
            for index in range(len(batch.values))
            if chance.random() < outside.sink_failures
        }
        down = chance.random() < outside.sink_failures
        for index, value in enumerate(batch.values):
            where = outside.refused if down or index in refused else outside.written
            where.setdefault(self.config.tag, []).append(value)
        if down:
            raise PaletteError(f"sink {self.config.tag} is down")
        return refused


# --- the palette ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One entry: the node, its ports, and what the reference makes of it."""

    node: Any
    role: str
    compute: Callable[..., Any] | None = None
    ports: tuple[str, ...] = ("a",)
    optional: frozenset[str] = frozenset()
    gather: bool = False
    outputs: tuple[str, ...] = ("out",)
    exclusive: bool = False
    tagged: bool = True
    weight: int = 4
    policies: Mapping[str, Any] = field(default_factory=dict[str, Any])


_AB = ("a", "b")
_SIDES = ("left", "right")
PALETTE: dict[str, Kind] = {
    "source": Kind(CaseSource, "source", tagged=False, ports=(), weight=0),
    "sink": Kind(CaseSink, "sink", ports=("",), weight=0),
    "one": Kind(one, "map", ref_map, weight=8),
    "two": Kind(two, "map", ref_map, _AB, weight=6),
    "maybe": Kind(maybe, "map", ref_map, _AB, frozenset("b")),
    "gather": Kind(gather, "map", ref_map, ("items",), gather=True),
    "keep": Kind(keep, "filter", ref_filter, weight=6),
    "keep_two": Kind(keep_two, "filter", ref_filter, _AB),
    "slow": Kind(slow, "map", ref_map, weight=8),
    "slow_two": Kind(slow_two, "map", ref_map, _AB),
    "slow_gather": Kind(slow_gather, "map", ref_map, ("items",), gather=True),
    "unordered": Kind(unordered, "map", ref_map),
    "by_key": Kind(by_key, "map", ref_by_key),
    "slow_keep": Kind(slow_keep, "filter", ref_filter),
    "retried": Kind(retried, "map", ref_retry),
    "cancels": Kind(cancels, "map", ref_map, weight=1),
    "batched": Kind(batched, "map", ref_map, ("items",)),
    "lingering": Kind(lingering, "map", ref_map, ("items", "others")),
    "thread": Kind(thread, "map", ref_map, weight=1),
    "many": Kind(many, "expand", ref_expand, weight=6),
    "slow_many": Kind(slow_many, "expand", ref_expand),
    "collect": Kind(collect, "collect", ref_map, ("items",), weight=10),
    "collect_any": Kind(collect_any, "collect", ref_map, ("items",), weight=0),
    "split": Kind(split, "map", ref_split, outputs=_SIDES),
    "either": Kind(Either, "map", ref_either, outputs=_SIDES, exclusive=True),
    "slow_split": Kind(SlowClass, "map", ref_split, outputs=_SIDES, weight=2),
}

# --- expressions ----------------------------------------------------------------------------------------


def _at(value: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(value, dict):
            raise PaletteError(f"{value!r} has no fields")
        value = cast("dict[str, Any]", value)[name]
    return value


def _has_m(value: Any) -> bool:
    if not isinstance(value, dict):
        raise PaletteError("no fields")
    return "m" in value


CONDITIONS: dict[str, Callable[[Any, Any], bool]] = {
    "value.n % 2 == 0": lambda value, _: _at(value, "n") % 2 == 0,
    "value.n % 3 == 0": lambda value, _: _at(value, "n") % 3 == 0,
    "value.m.k > 1": lambda value, _: _at(value, "m", "k") > 1,
    "has(value.m) && value.m.k < 3": lambda value, _: _has_m(value) and _at(value, "m", "k") < 3,
    "record.id % 2 == 1": lambda _, record: record["id"] % 2 == 1,
    "value != null": lambda value, _: value is not None,
}
