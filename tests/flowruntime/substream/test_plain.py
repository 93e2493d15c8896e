"""Values with streams as results and events are given them: plain, and no item taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from flowcore.errors import ContractError, LimitExceededError
from flowruntime.substream.live import LiveStream
from flowruntime.substream.plain import Allowance, description_of, gathered, plain_of
from flowruntime.testing.contexts import StandaloneNodeContext
from tests.behaviour.harness import virtual


async def items(*given: Any) -> AsyncIterator[Any]:
    for item in given:
        await asyncio.sleep(0.01)
        yield item


def stream(*given: Any) -> LiveStream[Any]:
    return StandaloneNodeContext().stream(items(*given))


class Held(msgspec.Struct):
    words: Any
    count: int = 1


@virtual
async def test_streams_become_lists_wherever_they_are() -> None:
    plain = {"kept": [1, 2]}
    value: dict[str, Any] = {"a": stream("x", "y"), "b": [(stream(1), 2), Held(stream())], "c": plain}
    found = await gathered(value, Allowance("n", 10, 100))
    assert found == {"a": ["x", "y"], "b": [([1], 2), Held([])], "c": plain}
    assert plain_of(value) == found
    assert isinstance(value["a"], LiveStream), "the node's own value is left as it is"


@virtual
async def test_a_value_that_holds_itself_is_no_trap() -> None:
    value: list[Any] = [stream(1)]
    value.append(value)
    found = await gathered(value, Allowance("n", 10, 100))
    assert found[0] == [1]
    assert found[1] is found


def test_a_value_without_streams_is_given_back_as_it_is() -> None:
    value = {"a": [1, (2,)]}
    assert plain_of(value) is value
    assert description_of(value) is value


@virtual
async def test_what_was_not_gathered_is_described_and_not_read() -> None:
    value = [stream(1, 2)]
    assert description_of(value) == [{"stream": "waiting", "items": 0}]
    assert [item async for item in value[0]] == [1, 2]
    assert plain_of(value) == [{"stream": "ended", "items": 2}]


@virtual
async def test_the_allowance_is_for_all_streams_of_a_value_together() -> None:
    for most_items, most_bytes, said in ((3, 100, "more than 3 items"), (9, 35, "more than 35 bytes")):
        value = [stream("ab", "cd"), stream("ef", "gh")]
        with pytest.raises(LimitExceededError, match=said):
            await gathered(value, Allowance("n", most_items, most_bytes))
        await asyncio.sleep(0)
        assert all(each.production.is_cancelled or each.production.is_over for each in value)


@virtual
async def test_an_error_of_one_stream_ends_the_reading_of_all() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    value = [StandaloneNodeContext().stream(broken()), stream(*range(1000))]
    with pytest.raises(ValueError, match="broken"):
        await gathered(value, Allowance("n", 10_000, 1 << 20))
    await asyncio.sleep(0)
    assert value[1].production.is_cancelled
    assert value[1].production.gathered is None


@virtual
async def test_what_has_its_consumer_already_cannot_be_gathered() -> None:
    taken = stream(1)
    aiter(taken)
    with pytest.raises(ContractError, match="one consumer"):
        await gathered(taken, Allowance("n", 10, 100))
    taken.cancel()
    await asyncio.sleep(0)
