"""Whom a health check asks: what the workflows of a runtime are connected to.

Owns: finding components that implement `HealthCheck`: sources, sinks, nodes, and the providers their
configurations name.
Does not own: asking them (asking), which stores and workflows there are (the runtime).

Always holds: a component is asked where it works already; one of a workflow that does not run is made, asked
and let go, never opened. A provider is the object calls use, one for each endpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from flowcore.config import with_secrets
from flowcore.errors import DefinitionError, FlowError
from flowcore.findings import shown
from flowcore.health import Health, HealthCheck
from flowcore.llm.endpoint import Endpoint
from flowruntime.execute.context import ConnectorContext
from flowruntime.execute.revealed import config_of
from flowruntime.health.asking import Ask
from flowruntime.health.process import loop_turns, memory_left
from flowruntime.models.report import host_of
from flowruntime.operators.outcome import OUTCOME

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode
    from flowruntime.execute.context import Services
    from flowruntime.state.store.protocol import Store

_ENDPOINT_FIELDS: Final = ("provider", "base_url", "api_key", "headers", "timeouts", "options")
"""Of a node's configuration: what names an endpoint, see `Endpoint`."""


class Subjects:
    """Collects checks by name.

    Args:
        services: what contexts hand on.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._endpoints: list[Endpoint] = []
        """Of providers; secrets in them are names still."""
        self.checks: dict[str, Ask] = {}

    def add_process(self) -> None:
        """The process itself."""
        self.checks["memory"] = memory_left
        self.checks["event loop"] = loop_turns

    def add(self, name: str, check: HealthCheck) -> None:
        """What a user named, or the positions."""
        self._put(name, partial(check.health, ConnectorContext(self._services, "", name, delivery="")))

    def add_store(self, store: Store) -> None:
        """Of workflows, executions, waits and journals."""
        self._put("store", partial(_ping, store))

    def add_graph(self, graph: ResolvedGraph, workflow_id: str, live: Mapping[str, Any]) -> None:
        """What one workflow is connected to.

        Args:
            graph: validated.
            workflow_id: for names and contexts.
            live: components at work, by node; of the others one is made.
        """
        for node in graph.nodes.values():
            ctx = ConnectorContext(self._services, workflow_id, node.id, delivery=graph.settings.delivery)
            component = live.get(node.id)
            if isinstance(component, HealthCheck):
                self._put(f"{workflow_id}/{node.id}", partial(component.health, ctx))
            elif component is None and _can_be_asked(node):
                self._put(f"{workflow_id}/{node.id}", partial(_ask_made, node, ctx))
            for endpoint in _endpoints_of(node.config):
                self._add_provider(endpoint, ctx)

    def _add_provider(self, endpoint: Endpoint, ctx: ConnectorContext) -> None:
        """Once for each endpoint, however many nodes name it."""
        if endpoint in self._endpoints:
            return
        self._endpoints.append(endpoint)
        where = f" at {host_of(endpoint)}" if endpoint.base_url else ""
        self._put(f"provider {endpoint.provider}{where}", _asking(endpoint, self._services, ctx))

    def _put(self, name: str, ask: Ask) -> None:
        """Under a name of its own: several runs of one workflow are asked each."""
        number = 1
        free = name
        while free in self.checks:
            number += 1
            free = f"{name} #{number}"
        self.checks[free] = ask


def check_added(name: str, check: HealthCheck, known: Collection[str]) -> HealthCheck:
    """A check a user adds.

    Raises:
        DefinitionError: it has no coroutine `health`, or the name is taken.
    """
    if not inspect.iscoroutinefunction(getattr(check, "health", None)):
        raise DefinitionError(
            f"health check {name!r}: {shown(check)} has no coroutine `async def health(self, ctx) -> Health`"
        )
    if name in known:
        raise DefinitionError(f"there is a health check {name!r} already; give this one another name")
    return check


def _can_be_asked(node: ResolvedNode) -> bool:
    """Its class implements the protocol."""
    definition = node.definition
    if definition is OUTCOME or (node.role not in ("source", "sink") and not node.node.is_class):
        return False
    return callable(getattr(definition.implementation, "health", None))


async def _ping(store: Store) -> Health:
    await store.ping()
    return Health("ok", f"{store.url} answers")


async def _ask_made(node: ResolvedNode, ctx: ConnectorContext) -> Health:
    """Of a component that is not at work: made for this question."""
    component: HealthCheck = node.definition.implementation(config_of(node, ctx.secret))
    return await component.health(ctx)


def _asking(endpoint: Endpoint, services: Services, ctx: ConnectorContext) -> Ask:
    """How to ask a provider, opened as a call would open it.

    What it takes to ask is loaded now: later it would hold up the other checks, that of the loop among them.
    """
    try:
        resolved: Endpoint = with_secrets(endpoint, services.secrets.resolve)
        provider: Any = services.models().providers.of(resolved)
    except FlowError as fault:
        return partial(_failing, fault.message)
    if not isinstance(provider, HealthCheck):
        return _unasked
    services.http()
    return partial(provider.health, ctx)


async def _failing(reason: str) -> Health:
    return Health("failing", reason)


async def _unasked() -> Health:
    return Health("ok", "installed; it offers no check of its own")


def _endpoints_of(config: object) -> Iterator[Endpoint]:
    """The endpoints a node's configuration names: its own, then those it falls back to."""
    others: object = getattr(config, "fallback", ())
    parts: list[object] = [config]
    parts.extend(cast("tuple[object, ...]", others) if isinstance(others, tuple) else ())
    for part in parts:
        if isinstance(getattr(part, "provider", None), str):
            given = {name: getattr(part, name) for name in _ENDPOINT_FIELDS if hasattr(part, name)}
            yield Endpoint(**given)
