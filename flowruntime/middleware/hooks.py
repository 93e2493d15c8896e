"""Asking one hook of one middleware: its answer, or a failure that names it.

Owns: which hooks a middleware overrides, running a hook to its end where nothing can wait, turning
what a hook raises into `MiddlewareError` or `RefusedError`.
Does not own: the order of middlewares (flowruntime.middleware.layers).

Always holds: whatever a hook raises leaves as an error with its name, but for cancellation, which passes
through as it is; a hook that is not overridden is None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final

from flowcore.errors import DefinitionError, FlowError, MiddlewareError, RefusedError
from flowcore.middleware import Middleware

NODE_HOOKS: Final = ("before_node", "after_node", "node_error", "wrap_node")
RUN_HOOKS: Final = ("before_run", "after_run", "run_error", "wrap_run")

Hook = Callable[..., Any]


def name_of(middleware: Middleware) -> str:
    """For errors and figures."""
    return middleware.name or type(middleware).__name__


def overridden(middleware: Middleware, hook: str) -> Hook | None:
    """The hook, when the middleware has one of its own."""
    own: Any = getattr(middleware, hook)
    base: Any = getattr(Middleware, hook)
    return None if getattr(own, "__func__", own) is base else own


def check_middleware(given: object) -> Middleware:
    """What a user gave as middleware.

    Raises:
        DefinitionError: it is none, or one of its hooks has a form that cannot be called.
    """
    if inspect.isclass(given) and issubclass(given, Middleware):
        raise DefinitionError(
            f"middleware: {given.__name__} is a class; give an instance of it: {given.__name__}()"
        )
    if not isinstance(given, Middleware):
        raise DefinitionError(
            f"middleware: {given!r} is a {type(given).__name__}; derive its class from flowcore.Middleware"
        )
    for hook in ("wrap_run", "wrap_node"):
        own = overridden(given, hook)
        if own is not None and not inspect.iscoroutinefunction(own):
            raise DefinitionError(
                f"middleware {name_of(given)!r}: {hook} is no coroutine function; write "
                f"`async def {hook}(self, call, proceed)` and `await proceed(call)`"
            )
    return given


def fault(middleware: str, hook: str, where: str, error: Exception, node: str | None) -> FlowError:
    """What a hook raised, as the failure of the row or run it was asked about; that is its `__cause__`.

    Args:
        middleware: its name.
        hook: which one raised.
        where: what it was asked about, as text.
        error: what it raised.
        node: the node's id; None around a run.
    """
    facts: dict[str, Any] = {"middleware": middleware, "hook": hook, "reason": str(error), "node": node}
    if isinstance(error, RefusedError):
        named: FlowError = RefusedError(f"middleware {middleware!r} refused {where}: {error}", **facts)
    else:
        if is_retriable(error):
            facts["retriable"] = True
        message = f"middleware {middleware!r} failed in {hook} of {where}: {type(error).__name__}: {error}"
        named = MiddlewareError(message, **facts)
    named.__cause__ = error
    return named


def is_retriable(error: Exception) -> bool:
    """Whether trying again can help, by the rule retries use when nobody names classes."""
    if isinstance(error, FlowError):
        return error.retriable
    return isinstance(error, ConnectionError | TimeoutError)


Trail = list[tuple[str, str]]
"""The hooks being asked, outermost first: middleware and hook."""


def run_to_end(coroutine: Coroutine[Any, Any, Any], trail: Trail) -> Any:
    """What a coroutine returns that never waits.

    Args:
        coroutine: run here and now.
        trail: kept by it; names the hook that waits.

    Raises:
        MiddlewareError: it does wait; it is closed.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    middleware, hook = trail[-1] if trail else ("unknown", "unknown")
    coroutine.close()
    raise MiddlewareError(
        f"middleware {middleware!r} awaits something in {hook} that is not there yet, around a plain "
        "function inside a fused stage, where nothing can wait; set `waits = True` on its class, or leave "
        "this node out in `covers`",
        middleware=middleware,
        hook=hook,
    )
