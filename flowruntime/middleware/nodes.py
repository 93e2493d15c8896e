"""Where hooks meet nodes: the call of each kind of node, put through its layers.

Owns: a fused function with hooks (`fused`), a job of a pool (`job`), an expanding node (`start`), a reducing
one (`reduce`), and `Place`, the row a fused stage is at.
Does not own: the order of hooks (flowruntime.middleware.layers), which nodes have any (coverage).

Always holds: a node without hooks is bound as ever, this module is not even asked; what a filter lets through
is the row as it came, whatever inputs it was given to judge.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.errors import EngineError
from flowcore.frame import Frame, Opened
from flowcore.middleware import NodeCall, RowFacts
from flowruntime.flowcontrol.jobs import Job

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.middleware.layers import NodeHooks


class Rows(Protocol):
    """The chain, as far as the rows of a call go."""

    @property
    def task(self) -> str | None: ...
    def execution_id(self, opened: Opened, row: int) -> str | None: ...
    def attributes(self, opened: Opened, row: int) -> Mapping[str, Any]: ...


class Place:
    """The row a fused stage is working on: generated code does not hand it to the functions it calls."""

    __slots__ = ("opened", "row")

    def __init__(self) -> None:
        self.opened: Opened | None = None
        self.row = 0

    def follow(self, frame: Frame[Any]) -> Iterator[int]:
        """The rows of a frame, each noted as it is taken."""
        self.opened = frame.opened
        for row in frame.present:
            self.row = row
            yield row


def call_of(
    hooks: NodeHooks, chain: Rows, inputs: Mapping[str, Any], rows: Iterable[tuple[Opened, int]], attempt: int
) -> NodeCall:
    """The call hooks are asked about."""
    return NodeCall(
        node=hooks.facts,
        inputs=inputs,
        rows=tuple(
            RowFacts(
                execution_id=chain.execution_id(opened, row) or "", attributes=chain.attributes(opened, row)
            )
            for opened, row in rows
        ),
        mode="request" if chain.task is None else "stream",
        attempt=attempt,
    )


def fused(node: ResolvedNode, function: Callable[..., Any], chain: Rows, place: Place) -> Callable[..., Any]:
    """What generated code calls in the place of a node's function."""
    hooks, ports = _hooks(node), _ports(node)
    make: Any = node.node.input_type

    def around(inputs: Mapping[str, Any], inner: Callable[[NodeCall], Any]) -> Any:
        opened = place.opened
        if opened is None:
            raise EngineError(f"node {node.id!r} was called outside a frame")
        call = call_of(hooks, chain, inputs, ((opened, place.row),), 1)
        return hooks.through_now(call, inner)

    def of_function(*values: Any, **keywords: Any) -> Any:
        return around(
            dict(zip(ports, values, strict=True)),
            lambda call: function(*[call.inputs[port] for port in ports], **keywords),
        )

    def of_class(inputs: Any, context: Any) -> Any:
        return around(
            {port: getattr(inputs, port) for port in ports},
            lambda call: function(make(**call.inputs), context),
        )

    return of_class if node.node.is_class else of_function


def job(node: ResolvedNode, call: Callable[[Job], Any]) -> Callable[[Job], Awaitable[Any]]:
    """One attempt of a job of a pool, put through the layers; in the parent, for offloaded nodes."""
    hooks, ports = _hooks(node), _ports(node)
    single = len(ports) == 1
    batched = node.node.batched

    def inputs_of(job: Job) -> dict[str, Any]:
        if batched:
            rows: list[Any] = job.value
            columns = [list(rows)] if single else [list(column) for column in zip(*rows, strict=True)]
            return dict(zip(ports, columns, strict=True))
        return dict(zip(ports, (job.value,) if single else job.value, strict=True))

    def value_of(inputs: Mapping[str, Any]) -> Any:
        values = [inputs[port] for port in ports]
        if batched:
            return values[0] if single else list(zip(*values, strict=True))
        return values[0] if single else tuple(values)

    async def around(job: Job) -> Any:
        owner: Any = job.lane.owner
        members: Sequence[Job] = job.members if batched else (job,)
        made = call_of(
            hooks,
            owner.kernel,
            inputs_of(job),
            [(member.opened, member.row) for member in members],
            job.attempt,
        )

        async def inner(asked: NodeCall) -> Any:
            answer = call(job if asked.inputs is made.inputs else _with_value(job, value_of(asked.inputs)))
            return await answer if inspect.isawaitable(answer) else answer

        return await hooks.through(made, inner)

    return around


def _with_value(job: Job, value: Any) -> Job:
    """The job as the node sees it; the job itself keeps the row as it came."""
    seen = Job(job.lane, job.opened, job.row, value)
    seen.attempt, seen.started = job.attempt, job.started
    seen.members, seen.prepared = job.members, job.prepared
    return seen


Start = Callable[[Opened, int, Any, int], Any]


def start(node: ResolvedNode, begin: Start, chain: Rows, *, unpack: bool) -> Start:
    """What calls an expanding node and gives its rows."""
    hooks, ports = _hooks(node), _ports(node)
    waits = hooks.waits or node.node.is_async

    def around(opened: Opened, row: int, value: Any, attempt: int) -> Any:
        inputs = dict(zip(ports, value if unpack else (value,), strict=True))
        call = call_of(hooks, chain, inputs, ((opened, row),), attempt)

        def inner(asked: NodeCall) -> Any:
            if asked.inputs is inputs:
                return begin(opened, row, value, attempt)
            values = tuple(asked.inputs[port] for port in ports)
            return begin(opened, row, values if unpack else values[0], attempt)

        return hooks.children(call, inner) if waits else hooks.children_now(call, inner)

    return around


Members = Sequence[tuple[Opened, int]]


def reduce(
    node: ResolvedNode, function: Callable[[list[Any]], Any], chain: Rows
) -> Callable[[list[Any], Members], Any]:
    """What makes one value of several rows (collect, batch)."""
    hooks, (port,) = _hooks(node), _ports(node)

    def around(items: list[Any], members: Members) -> Any:
        call = call_of(hooks, chain, {port: items}, members, 1)
        return hooks.through_now(call, lambda asked: function(asked.inputs[port]))

    return around


def _hooks(node: ResolvedNode) -> NodeHooks:
    if node.hooks is None:
        raise EngineError(f"node {node.id!r} has no middleware around it")
    return node.hooks


def _ports(node: ResolvedNode) -> tuple[str, ...]:
    return tuple(port.name for port in node.node.inputs)
