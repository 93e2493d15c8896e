"""What the tests of streams share: producers that are watched, nodes that read, workflows in a row.

Owns: `Producers`, which knows what was begun and closed; `chain`. Does not own: expectations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from flowcore import (
    NodeContext,
    Stream,
    Workflow,
    node,
)


class Producers:
    """What the producers of a test did."""

    def __init__(self) -> None:
        self.begun = 0
        self.closed = 0
        """Their `finally` has run."""
        self.released = 0
        """`on_close` has run."""
        self.given: list[Any] = []

    async def items(
        self, count: int, *, each_s: float = 0.01, fails_at: int | None = None, closing_s: float = 0.0
    ) -> AsyncIterator[str]:
        self.begun += 1
        try:
            for number in range(count):
                await asyncio.sleep(each_s)
                if number == fails_at:
                    raise ValueError(f"no item {number}")
                self.given.append(number)
                yield f"t{number}"
        finally:
            await asyncio.sleep(closing_s)
            self.closed += 1

    async def release(self) -> None:
        self.released += 1

    def node(self, **options: Any) -> Any:
        """A node that streams as many items as it is told."""
        capacity: int = options.pop("capacity", 64)

        @node("stream.make")
        async def make(count: int, ctx: NodeContext) -> Stream[str]:
            await asyncio.sleep(0)
            return ctx.stream(self.items(count, **options), capacity=capacity, on_close=self.release)

        return make

    def assert_closed(self, made: int = 1) -> None:
        assert self.closed == self.begun
        assert self.released == made


@node("stream.read")
async def read(stream: Stream[str]) -> list[str]:
    """All items."""
    return [item async for item in stream]


@node("stream.first")
async def first(stream: Stream[str]) -> str:
    """The first item."""
    async for item in stream:
        return item
    return ""


@node("stream.upper")
def upper(stream: Stream[str], ctx: NodeContext) -> Stream[str]:
    """The items, larger: a plain function, and yet nothing waits for the items."""

    async def larger() -> AsyncIterator[str]:
        async for item in stream:
            yield item.upper()

    return ctx.stream(larger())


@node("stream.reader")
async def read_anything(value: Any) -> list[Any]:
    """All items of what is a stream."""
    return [item async for item in value]


def values(*given: Any) -> tuple[str, dict[str, Any]]:
    """A source of these."""
    return "memory.source", {"config": {"values": list(given)}}


def chain(*things: Any, settings: dict[str, Any] | None = None, **policies: Any) -> Workflow:
    """The nodes `n0`, `n1`, ... in a row; policies are those of the last one."""
    wf = Workflow("streams", settings=settings or {"on_error": "continue"})
    last = len(things) - 1
    refs: list[Any] = []
    for index, thing in enumerate(things):
        pair = cast("tuple[Any, Any]", thing if isinstance(thing, tuple) else (thing, {}))
        options: dict[str, Any] = {**pair[1], **(policies if index == last else {})}
        refs.append(wf.add(pair[0], id=f"n{index}", **options))
    if len(refs) > 1:
        wf.chain(*refs)
    return wf


@node("stream.nobody", kind="filter")
def never(value: Any) -> bool:
    """Lets nothing pass."""
    return False


@node("stream.breaks")
async def breaks(stream: Stream[str]) -> int:
    """Fails before it has read anything."""
    raise ValueError("broken")


@node("stream.breaks_later")
async def breaks_later(stream: Stream[str]) -> int:
    """Fails after an item, and its traceback keeps the iterator."""
    reader = aiter(stream)
    item = await anext(reader)
    raise ValueError(f"broken at {item}")
