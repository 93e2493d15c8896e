"""The layers around the calls of one node: outermost first on the way in, in reverse on the way out.

Owns: `NodeHooks`, the order hooks are asked in, checking what they answer.
Does not own: where a node is called (flowruntime.middleware.nodes), single hooks (hooks).

    before 1 -> wrap 1 ( before 2 -> wrap 2 ( node ) -> after 2 | error 2 ) -> after 1 | error 1

Always holds: an inner failure is seen by every outer `node_error` unless a `wrap_node` between has dealt with
it; a changed call has the ports of the node; the one rule serves nodes that wait and nodes that do not.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.errors import ContractError
from flowcore.middleware import Middleware, NodeCall, NodeFacts, Substitute
from flowruntime.middleware.children import AsyncOnce, Once
from flowruntime.middleware.hooks import Trail, fault, name_of, overridden, run_to_end

if TYPE_CHECKING:
    from flowcore.errors import FlowError

Inner = Callable[[NodeCall], Awaitable[Any]]


class NodeLayer:
    """The hooks of one middleware around nodes."""

    __slots__ = ("after", "before", "error", "name", "waits", "wrap")

    def __init__(self, middleware: Middleware) -> None:
        self.name = name_of(middleware)
        self.waits = middleware.waits
        self.before = overridden(middleware, "before_node")
        self.after = overridden(middleware, "after_node")
        self.error = overridden(middleware, "node_error")
        self.wrap = overridden(middleware, "wrap_node")

    @property
    def is_empty(self) -> bool:
        """It has no hook around nodes."""
        return self.before is self.after is self.error is self.wrap is None

    def fault(self, hook: str, call: NodeCall, error: Exception) -> FlowError:
        """What one of its hooks raised, named."""
        return fault(self.name, hook, f"node {call.node.id!r} ({call.node.type})", error, call.node.id)


class NodeHooks:
    """All layers around one node."""

    def __init__(self, facts: NodeFacts, layers: Sequence[NodeLayer]) -> None:
        self.facts = facts
        self.layers = tuple(layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the middlewares, outermost first."""
        return tuple(layer.name for layer in self.layers)

    @property
    def waits(self) -> bool:
        """Some hook awaits something, so the call cannot stand in a fused stage."""
        return any(layer.waits for layer in self.layers)

    async def through(self, call: NodeCall, inner: Inner) -> Any:
        """The output of the node, or of whoever answered in its place."""
        return await _Passage(self.layers, inner, [], expands=False).through(0, call)

    def through_now(self, call: NodeCall, inner: Callable[[NodeCall], Any]) -> Any:
        """The same, where nothing can wait."""
        trail: Trail = []
        passage = _Passage(self.layers, _as_async(inner), trail, expands=False)
        return run_to_end(passage.through(0, call), trail)

    def children_now(self, call: NodeCall, inner: Callable[[NodeCall], Any]) -> Iterable[Any]:
        """The rows a node yields for one, each past `after_node`, where nothing can wait."""
        trail: Trail = []
        passage = _Passage(self.layers, _as_async(lambda changed: Once(inner(changed))), trail, expands=True)
        return run_to_end(passage.through(0, call), trail)

    async def children(self, call: NodeCall, inner: Callable[[NodeCall], Any]) -> AsyncIterator[Any]:
        """The rows a node yields for one, each past `after_node`."""

        def once(changed: NodeCall) -> Any:
            found = inner(changed)
            return AsyncOnce(found) if hasattr(found, "__aiter__") else Once(found)

        passage = _Passage(self.layers, _as_async(once), [], expands=True, waits=True)
        found = await passage.through(0, call)
        async with contextlib.aclosing(_each(found)) as children:
            async for child in children:
                yield child


def _as_async(inner: Callable[[NodeCall], Any]) -> Inner:
    async def call_it(call: NodeCall) -> Any:
        return inner(call)

    return call_it


class _Passage:
    """One call on its way through the layers."""

    __slots__ = ("_expands", "_inner", "_layers", "_trail", "_waits")

    def __init__(
        self,
        layers: Sequence[NodeLayer],
        inner: Inner,
        trail: Trail,
        *,
        expands: bool,
        waits: bool = False,
    ) -> None:
        self._layers = layers
        self._inner = inner
        self._trail = trail
        self._expands = expands
        self._waits = waits

    async def through(self, index: int, call: NodeCall) -> Any:
        """From layer `index` inwards, and back."""
        if index == len(self._layers):
            return await self._inner(call)
        layer = self._layers[index]
        if layer.before is not None:
            answer = await self._ask(layer, "before_node", layer.before, call)
            call = call if answer is None else _checked(layer, "before_node", call, answer)
        try:
            output = await self._wrapped(index, layer, call)
        except Exception as error:
            other = await self._other(layer, call, error)
            if other is None:
                raise
            raise other from error
        if self._expands:
            return self._children(layer, call, output)
        return await self._after(layer, call, output)

    async def _wrapped(self, index: int, layer: NodeLayer, call: NodeCall) -> Any:
        if layer.wrap is None:
            return await self.through(index + 1, call)
        seen: list[Exception] = []

        async def proceed(changed: NodeCall) -> Any:
            checked = changed if changed is call else _checked(layer, "wrap_node", call, changed)
            try:
                return await self.through(index + 1, checked)
            except Exception as error:
                seen.append(error)
                raise

        self._trail.append((layer.name, "wrap_node"))
        try:
            return await layer.wrap(call, proceed)
        except Exception as error:
            if any(error is inner for inner in seen):
                raise  # the node's own, on its way out
            raise layer.fault("wrap_node", call, error) from error
        finally:
            self._trail.pop()

    async def _after(self, layer: NodeLayer, call: NodeCall, output: Any) -> Any:
        if layer.after is None:
            return output
        answer = await self._ask(layer, "after_node", layer.after, call, output)
        if answer is None:
            return output
        if not isinstance(answer, Substitute):
            error = ContractError(
                f"it answered {answer!r}; return None, or Substitute(value) for another value"
            )
            raise layer.fault("after_node", call, error)
        return answer.value

    async def _other(self, layer: NodeLayer, call: NodeCall, error: Exception) -> Exception | None:
        """What to fail with in the place of `error`; None: with it."""
        if layer.error is None:
            return None
        answer = await self._ask(layer, "node_error", layer.error, call, error)
        if answer is not None and not isinstance(answer, Exception):
            wrong = ContractError(f"it answered {answer!r}; return None, or an exception to fail with")
            raise layer.fault("node_error", call, wrong)
        return None if answer is error else answer

    async def _ask(self, layer: NodeLayer, hook: str, function: Callable[..., Any], *given: Any) -> Any:
        """The answer of a hook, waited for where it is a coroutine."""
        self._trail.append((layer.name, hook))
        try:
            answer = function(*given)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            raise layer.fault(hook, given[0], error) from error
        finally:
            self._trail.pop()

    # --- nodes that yield several rows ----------------------------------------------------------------

    def _children(self, layer: NodeLayer, call: NodeCall, output: Any) -> Any:
        """The rows of a node that yields several, each past this layer on its way out."""
        if layer.after is None and layer.error is None:
            return output
        return self._each(layer, call, output) if self._waits else self._each_now(layer, call, output)

    def _each_now(self, layer: NodeLayer, call: NodeCall, output: Iterable[Any]) -> Iterator[Any]:
        children = iter(output)
        try:
            while True:
                try:
                    child = next(children)
                except StopIteration:
                    return
                except Exception as error:
                    other = run_to_end(self._other(layer, call, error), self._trail)
                    if other is None:
                        raise
                    raise other from error
                yield run_to_end(self._after(layer, call, child), self._trail)
        finally:
            _close(children)

    async def _each(self, layer: NodeLayer, call: NodeCall, output: Any) -> AsyncIterator[Any]:
        children = _each(output)
        try:
            while True:
                try:
                    child = await anext(children)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    other = await self._other(layer, call, error)
                    if other is None:
                        raise
                    raise other from error
                yield await self._after(layer, call, child)
        finally:
            await children.aclose()


async def _each(output: Any) -> AsyncGenerator[Any]:
    """Rows one by one, whatever kind of iterable holds them; closed when the taker leaves."""
    if hasattr(output, "__aiter__"):
        children: Any = aiter(output)
        try:
            async for child in children:
                yield child
        finally:
            close = getattr(children, "aclose", None)
            if close is not None:
                await close()
        return
    children = iter(output)
    try:
        for child in children:
            yield child
    finally:
        _close(children)


def _close(children: Any) -> None:
    close = getattr(children, "close", None)
    if close is not None:
        close()


def _checked(layer: NodeLayer, hook: str, call: NodeCall, changed: Any) -> NodeCall:
    """A call a hook made from another one.

    Raises:
        MiddlewareError: it is none, or has other ports.
    """
    if isinstance(changed, NodeCall) and changed.inputs.keys() == call.inputs.keys():
        return changed
    got = f"inputs {list(changed.inputs)!r}" if isinstance(changed, NodeCall) else repr(changed)
    error = ContractError(f"it gave {got}; give call.with_inputs(...), which keeps {list(call.inputs)!r}")
    raise layer.fault(hook, call, error)
