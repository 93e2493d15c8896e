"""Every kind of stage passes the operator contract.

Owns: the subjects. The contract itself is flowruntime.testing.conformance.operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops

from flowcore.context import NodeContext
from flowcore.frame import Record
from flowcore.node import node
from flowcore.operator import operator
from flowcore.policies import Batch
from flowcore.values import Stream
from flowcore.workflow import Workflow
from flowruntime.testing.collected import CollectedSink
from flowruntime.testing.conformance.operator import OperatorConformance, OperatorSubject
from flowruntime.testing.scripted import ScriptedSource

Records = reactivex.Observable[Record[Any]]


@node("contract.shout")
def shout(text: str) -> str:
    if text.endswith("7"):
        raise ValueError("sevens are too loud")
    return text + "!"


@node("contract.even", kind="filter")
def even(text: str) -> bool:
    return len(text) % 2 == 0


@node("contract.call")
async def call(text: str) -> str:
    """Waits for a time of its own, so that rows finish out of order; some fail."""
    number = sum(map(ord, text))
    await asyncio.sleep((number * 7919 % 13) / 4)
    if number % 11 == 0:
        raise ValueError(f"no answer for {text!r}")
    return text.upper()


@node("contract.ask", kind="filter")
async def ask(text: str) -> bool:
    await asyncio.sleep(len(text))
    return len(text) % 2 == 0


@node("contract.thread", offload="thread")
def thread(text: str) -> str:
    return text[::-1]


@node("contract.vectors", batch=Batch(max_items=3, linger=timedelta(seconds=1)))
async def vectors(texts: Sequence[str]) -> Sequence[Any]:
    await asyncio.sleep(len(texts[0]) / 2)
    if "13" in texts:
        raise ValueError("an unlucky batch")
    return [ValueError("five") if text.endswith("5") else text for text in texts]


@node("contract.letters")
def letters(text: str) -> Iterator[str]:
    for index, letter in enumerate(text * (len(text) - 1)):
        if letter == "9" and index:
            raise ValueError("no nines")
        yield letter


@node("contract.drip")
async def drip(text: str) -> AsyncIterator[str]:
    for letter in text:
        await asyncio.sleep(int(letter) / 5)
        if letter == "8":
            raise ValueError("no eights")
        yield letter


@node("contract.list", kind="collect")
def listed(items: Sequence[Any]) -> str:
    if len(items) > 3:
        raise ValueError("too many")
    return "".join(items)


@node("contract.pack", kind="batch", batch=Batch(max_items=4, linger=timedelta(seconds=1)))
def pack(items: Sequence[Any]) -> str:
    return ",".join(items)


@node("contract.both")
def both(left: str, right: str) -> str:
    return left + right


@operator("contract.explicit", settles="explicit", timeout=timedelta(seconds=50))
def explicit() -> Callable[[Records], Records]:
    def answer(record: Record[Any]) -> Record[Any]:
        return record.drop() if record.value.endswith("3") else record.with_value(record.value * 2)

    return lambda source: source.pipe(ops.map(answer))


@operator("contract.delayed", settles="explicit", timeout=timedelta(seconds=50))
def delayed() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.delay(1.5), ops.map(lambda record: record.with_value(record.value)))


@operator("contract.entry", settles="on_entry")
def entry() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.distinct_until_changed(lambda record: len(record.value)))


@node("contract.stream")
async def streamed(text: str, ctx: NodeContext) -> Stream[str]:
    """A stream of the text's letters; some break off."""

    async def items() -> AsyncIterator[str]:
        for place, letter in enumerate(text * 3):
            await asyncio.sleep(0.25)
            if letter == "7" and place > 2:
                raise ValueError(f"{text!r} broke off")
            yield letter

    await asyncio.sleep(len(text) % 3)
    return ctx.stream(items(), capacity=2)


@node("contract.heard")
async def heard(stream: Stream[str]) -> str:
    """Some of the items; some rows want none."""
    found = ""
    async for item in stream:
        found += item
        if item == "3":
            raise ValueError("three is enough")
        if len(found) == 4:
            break
    return found


@node("contract.unread")
def unread(stream: Stream[str]) -> str:
    """Reads nothing."""
    return type(stream).__name__


@node("contract.listen")
async def listen(streams: list[Stream[str]]) -> str:
    """The first item of each."""
    return "".join([await anext(aiter(stream), "") for stream in streams])


@node("contract.hidden")
def hidden(stream: Any) -> Any:
    """What no declaration tells of."""
    return {"words": stream}


class Flow:
    """A workflow in the making: a source, then whatever a subject needs."""

    def __init__(self) -> None:
        self.workflow = Workflow("contract", settings={"on_error": "continue", "allow_weaker": True})
        self.source = self.workflow.add(ScriptedSource, id="rows")

    def then(self, before: Any, type: object, **policies: Any) -> Any:
        handle = self.workflow.add(type, **policies)
        self.workflow.connect(before, handle)
        return handle

    def ends(self, *ends: Any) -> Workflow:
        for number, end in enumerate(ends):
            self.workflow.connect(end, self.workflow.add(CollectedSink, id=f"out{number}"))
        return self.workflow


def straight(*types: Any, **policies: Any) -> Callable[[], Workflow]:
    """Source, nodes in a row, sink; policies for the last of them."""

    def make() -> Workflow:
        flow = Flow()
        last: Any = flow.source
        for type in types[:-1]:
            last = flow.then(last, type)
        return flow.ends(flow.then(last, types[-1], **policies))

    return make


class TestFused(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(shout, even, shout), kind="fused", order="ordered")


class TestFusedWithBranchesAndErrors(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            loud = flow.then(flow.source, shout)
            few = flow.then(flow.source, even)
            workflow = flow.ends(loud, few)
            workflow.connect(few, workflow.add(CollectedSink, id="short"), when="size(value) < 2")
            workflow.connect(few, workflow.add(CollectedSink, id="rest"), otherwise=True)
            workflow.connect(loud["error"], workflow.add(CollectedSink, id="errors"))
            return workflow

        return OperatorSubject(make=make, kind="fused", order="ordered")


class TestWaitingOrdered(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        make = straight(call, concurrency={"max": 5, "order": "ordered"})
        return OperatorSubject(make=make, kind="async", order="ordered")


class TestWaitingUnordered(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(
            make=straight(call, concurrency={"max": 5, "order": "unordered"}), kind="async"
        )


class TestWaitingByKey(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        policies = {"max": 5, "order": "by_key", "max_queued_per_key": 4}
        make = straight(call, concurrency=policies, key="key")
        return OperatorSubject(make=make, kind="async", key=lambda value: value[-1], order="by_key")


class TestWaitingFilterWithRetriesAndTimeouts(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        make = straight(
            ask, timeout="1.5s", retry={"max_attempts": 2}, concurrency={"max": 3, "order": "unordered"}
        )
        return OperatorSubject(make=make, kind="async")


class TestWaitingForStreams(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        make = straight(streamed, heard, concurrency={"max": 4, "order": "unordered"})
        return OperatorSubject(make=make, kind="async")


class TestStreamsNobodyReads(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(streamed, unread), kind="fused")


class TestOffloadToThreads(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(thread), kind="offload", order="ordered")


class TestBatchingUnordered(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(
            make=straight(vectors, concurrency={"max": 2, "order": "unordered"}), kind="async"
        )


class TestBatchingOrdered(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(vectors, concurrency={"max": 2}), kind="async", order="ordered")


class TestExpand(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(letters), kind="expand")


class TestExpandAsynchronously(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(drip, concurrency=3), kind="expand")


class TestExpandOfStreams(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(streamed, "stream.split", concurrency=3), kind="expand")


class TestCollectOfStreams(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(letters, streamed, "control.collect", listen), kind="collect")


class TestSinkGivenStreams(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(streamed, hidden), kind="sink")


class TestCollect(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(letters, call, listed), kind="collect")


class TestCollectOfAnAsynchronousExpand(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(drip, listed), kind="collect")


class TestJoin(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            left = flow.then(flow.source, call, concurrency={"max": 5, "order": "unordered"})
            right = flow.then(flow.source, shout)
            join = flow.workflow.add(both)
            flow.workflow.connect(left, join["left"])
            flow.workflow.connect(right, join["right"])
            return flow.ends(join)

        return OperatorSubject(make=make, kind="join")


class TestJoinWithAnAncestor(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            left = flow.then(flow.source, letters)
            right = flow.then(flow.source, call)
            join = flow.workflow.add(both)
            flow.workflow.connect(left, join["left"])
            flow.workflow.connect(right, join["right"])
            return flow.ends(join)

        return OperatorSubject(make=make, kind="join")


class TestMerge(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            slow = flow.workflow.add(call, concurrency={"max": 5, "order": "unordered"})
            quick = flow.workflow.add(shout)
            flow.workflow.connect(flow.source, slow, when="size(value) > 1")
            flow.workflow.connect(flow.source, quick, otherwise=True)
            last = flow.workflow.add(even)
            flow.workflow.connect(slow, last)
            flow.workflow.connect(quick, last)
            return flow.ends(last)

        return OperatorSubject(make=make, kind="merge")


class TestReopen(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            slow = flow.then(flow.source, call)
            quick = flow.then(flow.source, shout)
            last = flow.workflow.add(even)
            flow.workflow.connect(slow, last)
            flow.workflow.connect(quick, last)
            return flow.ends(last)

        return OperatorSubject(make=make, kind="reopen")


class TestReopenAndCollect(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            slow = flow.then(flow.source, call)
            quick = flow.then(flow.source, shout)
            last = flow.workflow.add(listed)
            flow.workflow.connect(slow, last)
            flow.workflow.connect(quick, last)
            return flow.ends(last)

        return OperatorSubject(make=make, kind="reopen")


class TestBatch(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(pack), kind="batch")


class TestOpaqueExplicit(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(explicit), kind="operator")


class TestOpaqueDelayed(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(delayed), kind="operator", holds_barriers=False)


class TestOpaqueOnEntry(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        return OperatorSubject(make=straight(entry), kind="operator")


class TestSink(OperatorConformance):
    @pytest.fixture
    def subject(self) -> OperatorSubject:
        def make() -> Workflow:
            flow = Flow()
            return flow.ends(flow.source, flow.then(flow.source, call))

        return OperatorSubject(make=make, kind="sink")
