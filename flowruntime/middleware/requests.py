"""Requests with hooks around them: their deadline, their two events, their result when a hook ends them.

Owns: `GovernedRequests`. Does not own: the order of hooks (runs), the request itself (flowruntime.execute).

Always holds: one start and one terminal event per request, the terminal one after every hook. A result whose
hooks failed is failed and shows no outputs: a hook that was to take something out of them did not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from flowcore.errors import CancelledRowError, RequestTimeoutError, describe_error
from flowcore.middleware import RunCall
from flowcore.states import Cancelled, Failed, WorkflowState
from flowruntime.execute.request_events import publish_ended, publish_started
from flowruntime.execute.requests import Governed
from flowruntime.execute.result import NodeOutcome, RunResult

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.durable.keeper import Claim
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.warm import WarmChains
    from flowruntime.middleware.runs import RunHooks


class GovernedRequests:
    """The requests of a runtime that has middleware around runs.

    Args:
        hooks: around each.
        bus: where their events go.
        clock: wall clock, Unix seconds.
    """

    def __init__(self, hooks: RunHooks, bus: EventBus, clock: Callable[[], float]) -> None:
        self._hooks = hooks
        self._bus = bus
        self._clock = clock

    async def execute(
        self,
        chains: WarmChains,
        call: RunCall,
        replace: Mapping[str, Any],
        *,
        write: bool,
        timeout: timedelta | None,
        claim: Claim | None = None,
    ) -> RunResult:
        """The request `call` asks for, past its hooks; with a claim an execution that goes on.

        Raises:
            ValidationFailedError: the workflow, or the inputs hooks let through.
        """
        graph = chains.resolved(call.workflow, "request")
        limit = graph.settings.timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = None if limit is None else loop.time() + limit.total_seconds()
        passage = _Passage(self._bus, self._clock, call, graph)
        scope = asyncio.timeout_at(deadline)

        async def perform(changed: RunCall) -> RunResult:
            scope.reschedule(None)  # from here on the request keeps its deadline itself
            passage.begun = True
            left = None if deadline is None else timedelta(seconds=max(0.0, deadline - loop.time()))
            chain, given, record = await chains.request(
                changed.workflow, changed.inputs, replace, write=write, within=left
            )
            try:
                passage.found = await chain.execute(
                    given,
                    record=record,
                    timeout=limit,
                    attributes=changed.attributes,
                    governed=Governed(call.execution_id, deadline),
                    claim=claim,
                )
            finally:
                chain.release()
            return passage.found

        try:
            async with scope:
                result = await self._hooks.through(call, perform)
        except asyncio.CancelledError:
            if not passage.is_inside:
                reason = "the caller was cancelled"
                passage.end(passage.cut_short(Cancelled(reason), CancelledRowError(reason)))
            raise
        except Exception as error:
            if passage.is_inside:
                raise  # nothing of it has started: its inputs are wrong, or a node cannot be initialised
            cause = _too_late(limit) if scope.expired() else error
            return passage.end(passage.cut_short(Failed(describe_error(cause)), cause))
        return passage.end(msgspec.structs.replace(result, execution_id=call.execution_id))


class _Passage:
    """How far one request has come, and what is told of it."""

    def __init__(
        self, bus: EventBus, clock: Callable[[], float], call: RunCall, graph: ResolvedGraph
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._call = call
        self._graph = graph
        self._started = clock()
        self.begun = False
        """The request itself has been asked; it tells of its start."""
        self.found: RunResult | None = None

    @property
    def is_inside(self) -> bool:
        """The request itself has been asked and has not answered."""
        return self.begun and self.found is None

    def end(self, result: RunResult) -> RunResult:
        """Tell of the end, and of the start where nobody has."""
        call = self._call
        if not self.begun:
            publish_started(self._bus, call.workflow_id, call.execution_id, self._graph)
        publish_ended(self._bus, result)
        return result

    def cut_short(self, state: WorkflowState, error: Exception) -> RunResult:
        """The result of a request a hook ended: before it began, or after it had a result."""
        cause = error if isinstance(state, Failed) else None
        if self.found is not None:
            return msgspec.structs.replace(self.found, state=state, cause=cause, outputs={}, captured={})
        middleware = getattr(error, "middleware", None)
        why = str(error) if middleware is None else f"middleware {middleware}"
        return RunResult(
            workflow_id=self._call.workflow_id,
            execution_id=self._call.execution_id,
            state=state,
            outcomes={node_id: NodeOutcome(state="cancelled", cause=why) for node_id in self._graph.nodes},
            started_at=self._started,
            ended_at=self._clock(),
            cause=cause,
        )


def _too_late(limit: timedelta | None) -> RequestTimeoutError:
    seconds = 0.0 if limit is None else limit.total_seconds()
    return RequestTimeoutError(
        f"the request did not get past its middleware within {seconds} s", timeout_s=seconds
    )
