"""stream.collect, stream.share and stream.split."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowcore.errors import ContractError, LimitExceededError, WrongKindError
from flowcore.values import Stream
from flownodes.stream.collect import collect
from flownodes.stream.share import share
from flownodes.stream.split import split
from flowruntime.testing.contexts import StandaloneNodeContext
from tests.behaviour.harness import virtual


class Words:
    """A stream, and whether its producer was closed."""

    def __init__(self, *given: Any, error: Exception | None = None) -> None:
        self._given = given
        self._error = error
        self.closed = 0
        self.stream: Stream[Any] = StandaloneNodeContext().stream(self._items())

    async def _items(self) -> AsyncIterator[Any]:
        try:
            for item in self._given:
                await asyncio.sleep(0)
                yield item
            if self._error is not None:
                raise self._error
        finally:
            self.closed += 1


@virtual
async def test_collect_gives_all_items_in_order() -> None:
    assert await collect(Words(1, None, [2]).stream) == [1, None, [2]]
    assert await collect(Words().stream) == []


@virtual
async def test_collect_puts_texts_together() -> None:
    assert await collect(Words("Hel", "lo", "").stream, join="") == "Hello"
    assert await collect(Words("a", "b").stream, join=", ") == "a, b"
    assert await collect(Words().stream, join="") == ""


@virtual
async def test_collect_refuses_what_is_too_long_and_closes_its_producer() -> None:
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((1, 2, 3), {"max_items": 2}, "more than 2 items; raise max_items"),
        (("ab", b"cd", "e"), {"max_bytes": 20}, "more than 20 bytes; raise max_bytes"),
    ]
    for given, config, said in cases:
        words = Words(*given, *range(1000))
        with pytest.raises(LimitExceededError, match=said):
            await collect(words.stream, **config)
        await asyncio.sleep(0.01)
        assert words.closed == 1
    assert await collect(Words(1, 2).stream, max_items=2) == [1, 2]
    assert await collect(Words("abcd").stream, max_bytes=12) == ["abcd"]


@virtual
async def test_collect_says_which_item_is_no_text() -> None:
    with pytest.raises(WrongKindError, match=r"\(item 1\) needs text, got a whole number 5"):
        await collect(Words("a", 5).stream, join="")
    await asyncio.sleep(0.01)


@virtual
async def test_collect_fails_with_the_error_of_the_producer() -> None:
    with pytest.raises(ValueError, match="broken"):
        await collect(Words("a", error=ValueError("broken")).stream)


@virtual
async def test_split_closes_the_producer_when_it_is_closed() -> None:
    words = Words(*range(1000))
    rows: Any = split(words.stream)
    assert await anext(rows) == 0
    await asyncio.sleep(0.01)
    assert words.closed == 0
    await rows.aclose()
    await asyncio.sleep(0.01)
    assert words.closed == 1


@pytest.mark.parametrize("value", [None, "text", ["a"], {"a": 1}, 5])
def test_none_takes_what_is_no_stream(value: Any) -> None:
    with pytest.raises(WrongKindError, match=r"stream\.share needs a Stream"):
        share(value)

    @virtual
    async def collected() -> None:
        with pytest.raises(WrongKindError, match=r"stream\.collect needs a Stream"):
            await collect(value)
        with pytest.raises(WrongKindError, match=r"stream\.split needs a Stream"):
            await anext(split(value))

    collected()


@virtual
async def test_a_shared_stream_gives_everybody_every_item() -> None:
    shared = share(Words(1, 2, 3).stream, capacity=2)
    assert await asyncio.gather(collect(shared), collect(shared)) == [[1, 2, 3], [1, 2, 3]]


@virtual
async def test_a_stream_that_is_read_cannot_be_shared() -> None:
    stream = Words(1).stream
    assert await collect(stream) == [1]
    with pytest.raises(ContractError, match="one consumer"):
        share(stream)


@virtual
async def test_split_makes_a_row_of_each_item_when_it_is_asked_for_one() -> None:
    words = Words("a", None, [2])
    rows = split(words.stream)
    await asyncio.sleep(1)
    assert await anext(rows) == "a"
    assert [row async for row in rows] == [None, [2]]
    assert words.closed == 1


@virtual
async def test_split_refuses_what_is_no_stream() -> None:
    with pytest.raises(WrongKindError, match=r"stream.split.*use transform.split for a list or text"):
        await anext(split([1, 2]))  # pyright: ignore[reportArgumentType] - what an untyped port may give
