"""Middleware: code of the operator's around runs and around the calls of nodes.

Owns: `Middleware` and its hooks, what a hook is given (`RunCall`, `NodeCall`) and may answer (`Substitute`).
Does not own: calling hooks in their order (flowruntime.middleware).

Always holds: a hook that is not overridden is never called and costs nothing; what a hook is given is not
changed by another one, a change is a new call.

Order: middlewares are given outermost first. On the way in `before_*` of the outer one comes first; on the
way out `after_*` and `*_error` of the inner one:

    outer.before -> inner.before -> node -> inner.after -> outer.after
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

import msgspec

from flowcore.errors import ContractError

if TYPE_CHECKING:
    from flowcore.definition import NodeKind
    from flowcore.states import WorkflowState
    from flowcore.workflow import Workflow

CallMode: TypeAlias = Literal["request", "stream"]


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a node before it runs."""

    id: str
    type: str
    kind: NodeKind
    category: str
    workflow: str
    """The name of its workflow."""
    workflow_id: str
    inputs: tuple[str, ...]
    """Its input ports."""
    batched: bool = False
    """One call is for several rows."""
    waits: bool = False
    """A coroutine, or run in a thread or process; else a plain function inside a fused stage."""


class RowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One row a call is for."""

    execution_id: str
    """The request, or the root record of a stream with its children."""
    attributes: Mapping[str, Any] = {}
    """What the caller of the run said of it: `rt.execute(..., attributes={"user": "ann"})`."""


class NodeCall(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One attempt of one call of a node."""

    node: NodeFacts
    inputs: Mapping[str, Any]
    """By port; for a call with several rows a list per port, one item per row."""
    rows: tuple[RowFacts, ...]
    """Whom the call is for: one row, several for a batch node."""
    mode: CallMode
    attempt: int = 1

    @property
    def node_id(self) -> str:
        return self.node.id

    @property
    def node_type(self) -> str:
        return self.node.type

    @property
    def execution_id(self) -> str:
        """Of the one row the call is for.

        Raises:
            ContractError: the call is for rows of several executions; they are in `rows`.
        """
        return self._only().execution_id

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the one row the call is for.

        Raises:
            ContractError: the call is for rows of several executions; they are in `rows`.
        """
        return self._only().attributes

    def with_inputs(self, **inputs: Any) -> Self:
        """The same call with other values at some ports.

        Raises:
            ContractError: the node has no such port.
        """
        for port in inputs:
            if port not in self.inputs:
                raise ContractError(
                    f"node {self.node.id!r} has no input port {port!r}; it has "
                    f"{', '.join(self.inputs) or 'none'}",
                    node=self.node.id,
                    port=port,
                )
        return msgspec.structs.replace(self, inputs={**self.inputs, **inputs})

    def _only(self) -> RowFacts:
        first = self.rows[0]
        if len(self.rows) > 1 and any(row.execution_id != first.execution_id for row in self.rows):
            raise ContractError(
                f"this call of node {self.node.id!r} is for {len(self.rows)} rows of several executions; "
                "look at each of call.rows",
                node=self.node.id,
                rows=len(self.rows),
            )
        return first


class RunCall(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One request, or one continuous run."""

    workflow: Workflow
    workflow_id: str
    execution_id: str
    mode: CallMode
    inputs: Any = None
    """As the caller gave them; None for a continuous run."""
    attributes: Mapping[str, Any] = {}
    """As the caller gave them; middleware around nodes sees them, too."""

    def with_inputs(self, inputs: Any) -> Self:
        """The same run with other inputs."""
        return msgspec.structs.replace(self, inputs=inputs)

    def with_attributes(self, **attributes: Any) -> Self:
        """The same run with more attributes: what `before_run` found out, for the hooks around nodes."""
        return msgspec.structs.replace(self, attributes={**self.attributes, **attributes})


class RunOutcome(Protocol):
    """The result of a run as middleware sees it: the runtime's `RunResult`."""

    @property
    def workflow_id(self) -> str: ...
    @property
    def execution_id(self) -> str: ...
    @property
    def state(self) -> WorkflowState: ...
    @property
    def ok(self) -> bool: ...
    @property
    def outputs(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def captured(self) -> Mapping[str, Sequence[Any]]: ...
    @property
    def errors(self) -> Mapping[str, Sequence[BaseException]]: ...
    @property
    def cause(self) -> BaseException | None: ...

    def with_outputs(
        self, outputs: Mapping[str, Mapping[str, Any]], captured: Mapping[str, Sequence[Any]] | None = None
    ) -> RunOutcome:
        """The same result with other outputs, and other captured values where they are given."""
        ...


class Substitute(msgspec.Struct, frozen=True):
    """The answer of `after_node` that puts another value in the place of a node's output."""

    value: Any


ProceedNode: TypeAlias = Callable[[NodeCall], Awaitable[Any]]
ProceedRun: TypeAlias = Callable[[RunCall], Awaitable[RunOutcome]]


class Middleware:
    """Base of a middleware: override the hooks you need, give instances to `FlowRuntime(middleware=[...])`.

    `before_*`, `after_*` and `*_error` may be `def` or `async def`; None as answer always means: go on as it
    is. `wrap_*` are `async def`. Around a plain function inside a fused stage nothing can wait: hooks run to
    their end at once, and one that really awaits something needs `waits = True`, which makes every plain node
    it covers a stage of its own.

    A hook that raises fails the run or the row with a `MiddlewareError` that names it; `RefusedError` says
    that it was meant. Cancellation goes through hooks like through any other code.

    One object serves all runs of a runtime, on its event loop: it may keep state, without locks.
    """

    name: str = ""
    """For errors; empty: the name of the class."""

    waits: bool = False
    """Hooks around nodes await something: plain nodes they cover become stages of their own."""

    def covers(self, node: NodeFacts, /) -> bool:
        """Whether this node's calls go through the hooks; asked once per node and chain, not per row."""
        del node
        return True

    # --- around a run ---------------------------------------------------------------------------------

    def before_run(self, call: RunCall, /) -> RunCall | Awaitable[RunCall | None] | None:
        """Before anything of the run starts: let it go on (None), change it (a call), refuse it (raise)."""
        del call

    def after_run(
        self, call: RunCall, result: RunOutcome, /
    ) -> RunOutcome | Awaitable[RunOutcome | None] | None:
        """The run has a result, whatever its state; nobody else has seen it yet.

        Returns:
            None, or the result to hand on in its place: of the same state.
        """
        del call, result

    def run_error(self, call: RunCall, error: Exception, /) -> Exception | Awaitable[Exception | None] | None:
        """The run has no result: it could not be started, or an inner middleware raised.

        Returns:
            None, or the exception to raise in its place.
        """
        del call, error

    async def wrap_run(self, call: RunCall, proceed: ProceedRun, /) -> RunOutcome:
        """Around everything of the run: `return await proceed(call)`, at most once.

        Of a request it may answer with an earlier result without proceeding.
        """
        return await proceed(call)

    # --- around the call of a node --------------------------------------------------------------------

    def before_node(self, call: NodeCall, /) -> NodeCall | Awaitable[NodeCall | None] | None:
        """Before one attempt: let it go on (None), change its inputs (a call), refuse it (raise)."""
        del call

    def after_node(self, call: NodeCall, output: Any, /) -> Substitute | Awaitable[Substitute | None] | None:
        """The node has answered; for a node that yields several rows: once for each of them.

        Returns:
            None, or `Substitute(value)` to go on with another value: that one is recorded, published and
            given to the following nodes.
        """
        del call, output

    def node_error(
        self, call: NodeCall, error: Exception, /
    ) -> Exception | Awaitable[Exception | None] | None:
        """The node, or an inner middleware, raised in this attempt.

        Returns:
            None, or the exception to fail with in its place.
        """
        del call, error

    async def wrap_node(self, call: NodeCall, proceed: ProceedNode, /) -> Any:
        """Around one attempt: `return await proceed(call)`, or another answer without it."""
        return await proceed(call)
