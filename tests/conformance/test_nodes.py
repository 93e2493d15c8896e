"""Every node of ours passes the node contract.

Owns: an example or more for each. The contract itself is flowruntime.testing.conformance.node.
Nodes are found by looking into flownodes, so a new one without an example fails here.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from msgspec import UNSET

import flownodes
from flowcore.context import HttpRequest, HttpResponse, HttpStream, NodeContext
from flowcore.errors import WrongKindError
from flowcore.node import definition_of, node
from flowcore.values import Stream
from flowcore.vectors import vector_of
from flownodes.llm.providers.local import LocalProvider
from flownodes.llm.providers.scripted import ScriptedProvider
from flownodes.vector.store import write_vectors
from flowruntime.testing.conformance.node import NodeConformance, NodeExample, NodeSubject, StreamOf
from flowruntime.testing.contexts import StandaloneNodeContext


class Echo:
    """An HttpClient that answers each request with its own body."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        headers = {"content-type": request.headers.get("Content-Type", "")}
        return HttpResponse(status=200, headers=headers, body=request.body, url=request.url, elapsed_s=0.0)

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        raise AssertionError(f"no node of these streams a response: {request.url}")


def row(value: Any, gives: Any, **config: Any) -> NodeExample:
    return NodeExample(inputs={"value": value}, config=config, gives=gives)


def scripted(*answers: dict[str, Any]) -> dict[str, Any]:
    """Configuration of a node that asks the scripted provider: where no rule fits it says what was asked."""
    return {"provider": "scripted", "model": "m", "options": {"answers": list(answers)}}


CUSTOMER = {"id": 7, "customer": {"name": "Ann", "tags": ["a", ["b"]]}, "note": None}

EXAMPLES: dict[str, list[NodeExample]] = {
    "control.batch": [NodeExample(inputs={"items": [1, "a", None]}, gives=[1, "a", None])],
    "control.collect": [NodeExample(inputs={"items": [{"a": 1}, 2]}, gives=[{"a": 1}, 2])],
    "control.condition": [
        row(3, {"true": 3}, when="value > 2"),
        row("x", {"false": "x"}, when='value == "y"'),
    ],
    "control.delay": [row({"a": 1}, {"a": 1}, duration="2s")],
    "control.gather": [NodeExample(inputs={"values": [1, None, "x"]}, gives=[1, None, "x"])],
    "control.limit": [row(1, gives=True, rows=1), row(1, gives=False, rows=0, per="record")],
    "control.merge": [row({"a": [1]}, {"a": [1]})],
    "control.switch": [
        row({"n": 9}, {"high": {"n": 9}}, cases={"high": "value.n > 8", "any": "value.n > 0"}),
        row({"n": 1}, {"any": {"n": 1}}, cases={"high": "value.n > 8", "any": "value.n > 0"}),
        row({"n": 0}, {"otherwise": {"n": 0}}, cases={"high": "value.n > 8", "any": "value.n > 0"}),
    ],
    "control.throttle": [row("x", "x", rows=10, per="1s")],
    "control.wait_for": [
        NodeExample(
            inputs={"value": {"total": 1200}},
            config={"title": "Pay {total} EUR?"},
            gives={"value": True, "original": {"total": 1200}, "approved": {"total": 1200}},
        ),
        NodeExample(
            inputs={"value": 1},
            config={"kind": "form", "schema": {"type": "boolean"}},
            gives={"value": True, "original": 1},
        ),
    ],
    "debug.log": [row({"password": "p"}, {"password": "p"}), row(5, 5, fields={"twice": "value * 2"})],
    "debug.sample": [row(1, gives=True, every=2), row(1, gives=True, fraction=1.0, by="value")],
    "debug.tap": [row({"a": 1}, {"a": 1}, redact=["a"])],
    "agent.run": [row("hi", UNSET, **scripted({"when": "hi", "text": "hello"}))],
    "embedding.similarity": [
        NodeExample(inputs={"a": vector_of([1.0, 0.0]), "b": vector_of([0.0, 2.0])}, gives=0.0)
    ],
    "llm.chat": [NodeExample(inputs={"messages": "hi"}, config=scripted({"text": "hello"}))],
    "llm.classify": [
        NodeExample(
            inputs={"text": "stolen"},
            config={"labels": ["fraud", "other"], **scripted({"json": {"label": "fraud"}})},
        )
    ],
    "llm.extract": [
        NodeExample(
            inputs={"text": "three"},
            config={"schema": {"type": "integer"}, **scripted({"json": 3})},
        )
    ],
    "llm.generate": [row({"a": 1}, UNSET, prompt="Say {{ a }}", **scripted({"text": "one"}))],
    "llm.stream": [row("hi", UNSET, **scripted({"text": "hello"}))],
    "embedding.embed": [NodeExample(inputs={"texts": "my card was stolen"})],
    "http.request": [
        NodeExample(
            inputs={"url": "http://a.example/", "body": {"a": 1}},
            config={"method": "POST", "decode": "json"},
            gives={
                "out": {
                    "status": 200,
                    "headers": {"content-type": "application/json"},
                    "body": {"a": 1},
                    "url": "http://a.example/",
                    "elapsed_s": 0.0,
                },
                "body": {"a": 1},
                "status": 200,
                "headers": {"content-type": "application/json"},
            },
        )
    ],
    "stream.collect": [
        NodeExample(inputs={"stream": StreamOf(["a", 1, None])}, gives=["a", 1, None]),
        NodeExample(inputs={"stream": StreamOf(["a", "b"])}, config={"join": "-"}, gives="a-b"),
    ],
    "stream.split": [NodeExample(inputs={"stream": StreamOf([1, [2]])}, gives=[1, [2]])],
    "stream.share": [NodeExample(inputs={"stream": StreamOf([1, 2])}, config={"capacity": 1}, gives=[1, 2])],
    "text.clean": [NodeExample(inputs={"text": " a\n\tb\x00 "}, config={"lower": True}, gives="a b")],
    "text.template": [row(CUSTOMER, "Dear Ann (7): {}", template="Dear {customer.name} ({id}): {{}}")],
    "transform.coerce": [row({"a": "42", "b": 1}, {"a": 42, "b": 1.0}, fields={"a": "int", "b": "float"})],
    "transform.filter": [row(3, gives=True, where="value > 2"), row(1, gives=False, where="value > 2")],
    "transform.flatten": [
        row(CUSTOMER, {"id": 7, "customer.name": "Ann", "customer.tags": ["a", ["b"]], "note": None}),
        row([1, [2, [3]]], [1, 2, [3]], depth=1),
    ],
    "transform.json_parse": [row(b'{"a": [1, 1.0, 1180591620717411303424]}', {"a": [1, 1.0, 2**70]})],
    "transform.json_stringify": [
        row({"b": 2**70, "a": 1}, '{"a":1,"b":1180591620717411303424}', sort_keys=True)
    ],
    "transform.map": [
        row(
            CUSTOMER,
            {"who": "Ann", "by": "a"},
            fields={"who": "value.customer.name", "by": {"$literal": "a"}}
        )
    ],
    "transform.pick": [row(CUSTOMER, {"customer": {"name": "Ann"}, "id": 7}, fields=["customer.name", "id"])],
    "transform.rename": [row({"a": 1, "b": 2}, {"b": 1, "a": 2}, fields={"a": "b", "b": "a"})],
    "transform.split": [row([1, [2]], [1, [2]]), row("a, b,,c", ["a", "b", "c"], separator=",")],
    "vector.nearest": [
        NodeExample(inputs={"vectors": vector_of([0.0, 2.0])}, config={"index": "{index}", "k": 1}),
    ],
}  # fmt: skip


@node("contract.spell")
async def spell(value: str, ctx: NodeContext) -> Stream[str]:
    """Its letters, one after the other.

    Emits when      always.
    Drops           nothing.
    Fails when      the value is no text.
    """
    if not isinstance(cast("object", value), str):
        raise WrongKindError("contract.spell needs text")

    async def letters() -> AsyncIterator[str]:
        for letter in value:
            await asyncio.sleep(0)
            yield letter

    return ctx.stream(letters(), capacity=1)


@node("contract.stubborn")
async def stubborn(value: str, ctx: NodeContext) -> Stream[str]:
    """One that swallows its cancellation for a while."""

    async def letters() -> AsyncIterator[str]:
        yield value
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1.5)

    return ctx.stream(letters(), capacity=2)


def nodes_of_ours() -> Iterator[tuple[str, Any]]:
    for module in pkgutil.walk_packages(flownodes.__path__, "flownodes."):
        for thing in vars(importlib.import_module(module.name)).values():
            definition = definition_of(thing)
            if definition is not None and definition.implementation.__module__ == module.name:
                yield definition.type, thing


NODES = dict(nodes_of_ours())


def test_every_example_is_of_a_node_there_is() -> None:
    assert EXAMPLES.keys() <= NODES.keys()


def test_each_type_stands_in_the_module_it_is_named_after() -> None:
    """Found by entry point: type `text.clean` lives in module `flownodes.text.clean`."""
    assert {f"flownodes.{name}" for name in NODES} == {thing.__module__ for thing in NODES.values()}


class TestANodeThatMakesAStream(NodeConformance):
    @pytest.fixture
    def subject(self) -> NodeSubject:
        return NodeSubject(node=spell, examples=[row("abc", ["a", "b", "c"]), row("", [])])


def test_a_producer_that_does_not_end_when_it_is_cancelled_is_found() -> None:
    subject = NodeSubject(node=stubborn, examples=[row("a", ["a"])])
    with pytest.raises(AssertionError, match=r"contract\.stubborn made a stream that does not end"):
        NodeConformance().test_a_stream_it_makes_may_be_closed_at_any_item(subject)


class TestNodes(NodeConformance):
    @pytest.fixture(params=sorted(NODES))
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> NodeSubject:
        index = tmp_path / "two.vectors"
        if request.param == "vector.nearest":
            write_vectors(index, np.eye(2, dtype=np.float32), ["x", "y"], {})
        examples = [
            NodeExample(
                inputs=example.inputs,
                config={
                    name: str(index) if value == "{index}" else value
                    for name, value in example.config.items()
                },
                gives=example.gives,
            )
            for example in EXAMPLES.get(request.param, [])
        ]
        return NodeSubject(
            node=NODES[request.param],
            examples=examples,
            context=lambda: StandaloneNodeContext(
                http=Echo(),
                event_time=datetime(2020, 1, 1, tzinfo=UTC),
                answers=[True],
                providers={"scripted": ScriptedProvider, "local": LocalProvider},
            ),
        )
