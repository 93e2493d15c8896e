"""What every node must do, as tests a node's author inherits.

Owns: `NodeConformance`, `NodeSubject`, `NodeExample`, `StreamOf`, and `call_node`, which runs a node of any
kind for one row.
Does not own: what is special about one node; its author tests that.

Always holds: the tests need no plugin, no network and no real waiting.

    class TestClean(NodeConformance):
        @pytest.fixture
        def subject(self) -> NodeSubject:
            return NodeSubject(node=clean, examples=[NodeExample(inputs={"text": " a "}, gives="a")])
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET

from flowcore.definition import NodeDefinition
from flowcore.errors import ConfigError, FlowError
from flowcore.node import definition_of
from flowcore.values import Json, Stream, same_value, streams_in
from flowruntime.factories import DefinitionFactory
from flowruntime.testing.contexts import StandaloneNodeContext

_ODD: list[object] = [
    None, True, 0, -7, 2**70, 1.5, float("nan"), float("inf"), "", "text", "\ud800", "\x00", b"", b"\xff\x00",
    [], [[]], [None, 1], {}, {"": None}, {"a": {"b": []}}, Json(b"{"), Json(b"[1]"),
]  # fmt: skip
_PATIENCE_S: Final = 1.0
ODD_VALUES: Final[Sequence[object]] = tuple(_ODD)
"""A value of each kind, and those that often break something: what any connection may bring."""


@dataclass(frozen=True)
class StreamOf:
    """Stands for a Stream of these items as an input; each call gets one of its own."""

    items: Sequence[Any]

    def live(self) -> Stream[Any]:
        """The stream itself, of no row."""

        async def items() -> AsyncIterator[Any]:
            for item in self.items:
                await asyncio.sleep(0)
                yield item

        return StandaloneNodeContext(node_id="example").stream(items())


@dataclass(frozen=True, kw_only=True)
class NodeExample:
    """One row and what becomes of it."""

    inputs: Mapping[str, Any]
    """Value by input port; a list of values for `items` ports of collect and batch nodes, a `StreamOf` where
    a Stream is taken."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """As in a workflow file."""
    gives: Any = UNSET
    """What comes out: the value, a list for expand nodes and Streams, value by port for several ports; UNSET:
    any."""


@dataclass(frozen=True, kw_only=True)
class NodeSubject:
    """A node under test: the decorated function or the class."""

    node: Any
    examples: Sequence[NodeExample]
    """Rows it takes; at least one. They must not fail."""
    context: Callable[[], Any] = StandaloneNodeContext

    @property
    def definition(self) -> NodeDefinition:
        found = definition_of(self.node)
        assert found is not None, f"{self.node!r} carries no definition; decorate it with @node"
        return found


class NodeConformance:
    """Inherit, and give a fixture `subject`."""

    def test_there_is_an_example(self, subject: NodeSubject) -> None:
        assert subject.examples, f"{subject.definition.type} has no example row: give one"

    def test_the_definition_is_whole(self, subject: NodeSubject) -> None:
        definition = subject.definition
        ports = [*definition.inputs, *definition.outputs]
        assert definition.inputs, "a node without input ports runs for no row"
        assert definition.outputs
        assert len({port.name for port in definition.inputs}) == len(definition.inputs)
        assert len({port.name for port in definition.outputs}) == len(definition.outputs)
        assert all(port.name.isidentifier() for port in ports)
        json.dumps(DefinitionFactory(definition).metadata())  # what `flow nodes` and the schema are made of

    def test_the_docstring_says_what_it_emits_drops_and_when_it_fails(self, subject: NodeSubject) -> None:
        """NOD-12."""
        description = subject.definition.description
        assert [word for word in ("Emits when", "Drops", "Fails when") if word not in description] == []

    def test_examples_give_what_they_say(self, subject: NodeSubject) -> None:
        """NOD-1."""
        for example in subject.examples:
            given = call_node(subject.definition, example, subject.context())
            if example.gives is not UNSET:
                assert same_value(given, example.gives), f"{example} gave {given!r}"

    def test_unknown_configuration_fields_are_refused(self, subject: NodeSubject) -> None:
        """ALL-4."""
        factory = DefinitionFactory(subject.definition)
        for example in subject.examples:
            try:
                factory.create({**example.config, "no_such_field": 1})
            except ConfigError as error:
                refused = str(error)
            else:
                refused = ""
            assert refused, f"{subject.definition.type} takes a configuration field that does not exist"
            assert "no_such_field" in refused or "no configuration" in refused

    def test_input_values_are_left_as_they_are(self, subject: NodeSubject) -> None:
        """NOD-3: a row may have other readers."""
        for example in subject.examples:
            before = copy.deepcopy(dict(example.inputs))
            call_node(subject.definition, example, subject.context())
            assert same_value(dict(example.inputs), before)

    def test_a_deterministic_node_gives_the_same_twice(self, subject: NodeSubject) -> None:
        if not subject.definition.deterministic:
            return
        for example in subject.examples:
            first = call_node(subject.definition, example, subject.context())
            assert same_value(call_node(subject.definition, example, subject.context()), first)

    def test_a_worker_process_finds_it_by_name(self, subject: NodeSubject) -> None:
        if subject.definition.offload != "process":
            return
        module, _, name = subject.definition.location.partition(":")
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        assert found is subject.node

    def test_values_of_any_kind_give_a_result_or_a_typed_error(self, subject: NodeSubject) -> None:
        """ALL-7, NOD-16: what a connection brings is not checked; an error says what was wrong with it."""
        for example in subject.examples:
            for port in subject.definition.inputs:
                for odd in ODD_VALUES:
                    value: object = (
                        [odd] if subject.definition.kind in ("collect", "batch") or port.gather else odd
                    )
                    inputs = {**example.inputs, port.name: value}
                    changed = NodeExample(inputs=inputs, config=example.config)
                    with suppress(FlowError):
                        call_node(subject.definition, changed, subject.context())

    def test_a_cancelled_call_ends_and_leaves_nothing_running(self, subject: NodeSubject) -> None:
        """ALL-8."""
        if not subject.definition.is_async:
            return
        for example in subject.examples:
            for turns in (0, 1, 3):
                asyncio.run(_cancelled_after(subject, example, turns))

    def test_shutdown_may_come_twice_and_without_a_start(self, subject: NodeSubject) -> None:
        """ALL-12, NOD-9."""
        if not subject.definition.is_class:
            return

        async def scenario(example: NodeExample) -> None:
            instance = DefinitionFactory(subject.definition).create(example.config)
            await instance.shutdown()
            await instance.initialize(subject.context())
            await instance.shutdown()
            await instance.shutdown()

        for example in subject.examples:
            asyncio.run(scenario(example))

    def test_a_stream_it_makes_may_be_closed_at_any_item(self, subject: NodeSubject) -> None:
        """NOD-13, NOD-14."""
        for example in subject.examples:
            for items in (0, 1, 2):
                asyncio.run(_closed_after(subject, example, items))

    def test_rows_are_made_as_they_are_asked_for(self, subject: NodeSubject) -> None:
        """NOD-7: a generator may be closed early."""
        if subject.definition.kind != "expand":
            return
        for example in subject.examples:
            instance = DefinitionFactory(subject.definition).create(example.config)
            rows = _call(subject.definition, instance, _live(example.inputs), subject.context())
            if isinstance(rows, AsyncIterator):
                continue
            iterator = iter(cast("Iterable[object]", rows))
            next(iterator, None)
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


def call_node(definition: NodeDefinition, example: NodeExample, context: Any) -> Any:
    """What the node makes of one row, whatever its kind: see `NodeExample.gives`. Runs its own event loop.

    Raises:
        Exception: what the node raised, or gave as the result of this row.
    """

    async def run() -> Any:
        instance = DefinitionFactory(definition).create(example.config)
        if definition.is_class:
            await instance.initialize(context)
        try:
            return await _finished(_call(definition, instance, _live(example.inputs), context))
        finally:
            if definition.is_class:
                await instance.shutdown()

    given = asyncio.run(run())
    if definition.batched:
        assert len(given) == 1, f"one row in, {len(given)} results"
        if isinstance(given[0], Exception):
            raise given[0]
        return given[0]
    if isinstance(given, msgspec.Struct):
        ports = {name: getattr(given, name) for name in given.__struct_fields__}
        return {name: value for name, value in ports.items() if value is not UNSET}
    return given


def _live(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.live() if isinstance(value, StreamOf) else value for name, value in inputs.items()}


def _call(definition: NodeDefinition, instance: Any, inputs: Mapping[str, Any], context: Any) -> Any:
    if definition.is_class:
        return instance.execute(definition.input_type(**inputs), context)
    values = {name: [value] for name, value in inputs.items()} if definition.batched else dict(inputs)
    if definition.context_name is not None:
        values[definition.context_name] = context
    positional = [values.pop(port.name) for port in definition.inputs if port.name in values]
    return instance(*positional, **values)


async def _finished(given: Any) -> Any:
    """Awaited, or run to its end."""
    if inspect.isawaitable(given):
        return await _finished(await given)
    if isinstance(given, AsyncIterator | Stream):
        return [item async for item in cast("AsyncIterable[Any]", given)]
    if inspect.isgenerator(given) or type(given).__name__.endswith("iterator"):
        return list(given)
    return given


async def _closed_after(subject: NodeSubject, example: NodeExample, items: int) -> None:
    """Read so many items of each stream of the result, then want no more."""
    inputs, context = _live(example.inputs), subject.context()
    instance = DefinitionFactory(subject.definition).create(example.config)
    if subject.definition.is_class:
        await instance.initialize(context)
    given = _call(subject.definition, instance, inputs, context)
    given = await given if inspect.isawaitable(given) else given
    for stream in streams_in(given):
        reader = aiter(stream)
        for _ in range(items):
            await anext(reader, None)
    made: list[Stream[Any]] = [*getattr(context, "streams", ()), *streams_in(inputs)]
    for stream in made:
        stream.cancel()
    left: set[asyncio.Task[Any]] = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_PATIENCE_S)
    assert not left, f"{subject.definition.type} made a stream that does not end when it is cancelled: {left}"
    if subject.definition.is_class:
        await instance.shutdown()


async def _cancelled_after(subject: NodeSubject, example: NodeExample, turns: int) -> None:
    inputs = _live(example.inputs)

    async def run() -> None:
        instance = DefinitionFactory(subject.definition).create(example.config)
        await _finished(_call(subject.definition, instance, inputs, subject.context()))

    task = asyncio.ensure_future(run())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    for stream in streams_in(inputs):
        stream.cancel()  # as the engine does with the streams of a row that is over
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"{subject.definition.type} left tasks running after it was cancelled: {left}"
