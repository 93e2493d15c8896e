"""The layers around a run: a request, or a continuous run.

Owns: `RunHooks`, the order of hooks around runs and checking what they answer.
Does not own: what a run does (flowruntime.execute), the events and the result of a request a hook ends
(requests).

Always holds: a run is done at most once; a hook changes outputs and never makes a run look better, or worse,
than it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.errors import ContractError
from flowcore.middleware import Middleware, RunCall
from flowruntime.execute.result import RunResult
from flowruntime.middleware.hooks import fault, name_of, overridden

if TYPE_CHECKING:
    from flowcore.errors import FlowError

Perform = Callable[[RunCall], Awaitable[RunResult]]


class RunLayer:
    """The hooks of one middleware around runs."""

    __slots__ = ("after", "before", "error", "name", "wrap")

    def __init__(self, middleware: Middleware) -> None:
        self.name = name_of(middleware)
        self.before = overridden(middleware, "before_run")
        self.after = overridden(middleware, "after_run")
        self.error = overridden(middleware, "run_error")
        self.wrap = overridden(middleware, "wrap_run")

    def fault(self, hook: str, call: RunCall, error: Exception) -> FlowError:
        """What one of its hooks raised, named."""
        return fault(self.name, hook, f"a {call.mode} of workflow {call.workflow.name!r}", error, None)

    def wrong(self, hook: str, call: RunCall, answer: object, want: str) -> FlowError:
        """An answer of a hook that cannot be used."""
        return self.fault(hook, call, ContractError(f"it answered {answer!r}; {want}"))

    async def ask(self, hook: str, function: Callable[..., Any], call: RunCall, *more: Any) -> Any:
        """The answer of a hook, waited for where it is a coroutine."""
        try:
            answer = function(call, *more)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            raise self.fault(hook, call, error) from error


class RunHooks:
    """All layers around the runs of a runtime, outermost first."""

    def __init__(self, middlewares: Sequence[Middleware]) -> None:
        self._layers = [RunLayer(middleware) for middleware in middlewares]

    async def through(self, call: RunCall, perform: Perform, index: int = 0) -> RunResult:
        """The result of the run past every hook.

        Raises:
            MiddlewareError, RefusedError: a hook did; and whatever `perform` raises.
        """
        if index == len(self._layers):
            return await perform(call)
        layer = self._layers[index]
        if layer.before is not None:
            answer = await layer.ask("before_run", layer.before, call)
            call = call if answer is None else _checked(layer, "before_run", call, answer)
        try:
            result = await self._wrapped(layer, call, perform, index)
        except Exception as error:
            other = await _other(layer, call, error)
            if other is None:
                raise
            raise other from error
        return await _after(layer, call, result)

    async def _wrapped(self, layer: RunLayer, call: RunCall, perform: Perform, index: int) -> RunResult:
        if layer.wrap is None:
            return await self.through(call, perform, index + 1)
        asked = False
        seen: list[Exception] = []
        found: RunResult | None = None

        async def proceed(changed: RunCall) -> RunResult:
            nonlocal asked, found
            if asked:
                raise ContractError("a run is done once; await proceed(call) once and keep its result")
            asked = True
            checked = changed if changed is call else _checked(layer, "wrap_run", call, changed)
            try:
                found = await self.through(checked, perform, index + 1)
            except Exception as error:
                seen.append(error)
                raise
            return found

        try:
            answer = await layer.wrap(call, proceed)
        except Exception as error:
            if any(error is inner for inner in seen):
                raise
            raise layer.fault("wrap_run", call, error) from error
        if not isinstance(answer, RunResult):
            raise layer.wrong("wrap_run", call, answer, "return the result of `await proceed(call)`")
        if found is not None:
            return _same_state(layer, "wrap_run", call, found, answer)
        if asked or call.mode == "stream":
            raise layer.wrong(
                "wrap_run", call, answer, "proceed, or raise RefusedError: this run has no result without it"
            )
        return answer


async def _other(layer: RunLayer, call: RunCall, error: Exception) -> Exception | None:
    """What to raise in the place of `error`; None: itself."""
    if layer.error is None:
        return None
    answer = await layer.ask("run_error", layer.error, call, error)
    if answer is not None and not isinstance(answer, Exception):
        raise layer.wrong("run_error", call, answer, "return None, or an exception")
    return None if answer is error else answer


async def _after(layer: RunLayer, call: RunCall, result: RunResult) -> RunResult:
    if layer.after is None:
        return result
    answer = await layer.ask("after_run", layer.after, call, result)
    if answer is None:
        return result
    if not isinstance(answer, RunResult):
        raise layer.wrong("after_run", call, answer, "return None, or a result: result.with_outputs(...)")
    return _same_state(layer, "after_run", call, result, answer)


def _same_state(layer: RunLayer, hook: str, call: RunCall, was: RunResult, now: RunResult) -> RunResult:
    """The result, which must tell the same of the run.

    Raises:
        MiddlewareError: it does not.
    """
    if now is was or now.state == was.state:
        return now
    raise layer.wrong(
        hook, call, now.state, f"the run is {was.state.name}; a middleware changes outputs, never the state"
    )


def _checked(layer: RunLayer, hook: str, call: RunCall, changed: Any) -> RunCall:
    """A call a hook made from another one: other inputs or attributes, the same run.

    Raises:
        MiddlewareError: it is none.
    """
    if (
        isinstance(changed, RunCall)
        and changed.execution_id == call.execution_id
        and changed.workflow is call.workflow
        and changed.mode == call.mode
    ):
        return changed
    raise layer.wrong(hook, call, changed, "give call.with_inputs(...) or call.with_attributes(...)")
