"""What a runtime hands the workflows it runs, and watches them with.

Owns: the event bus, metrics, redaction, the HTTP client, secrets, paths, log lines, ids, the watchdog, the
export of telemetry; closing all of these.
Does not own: workflows, chains, runs (flowruntime.runtime).

Always holds: nothing is opened, started or imported before something asks for it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowcore.ids import new_uuid7
from flowruntime.events.bus import EventBus
from flowruntime.execute.context import Services
from flowruntime.execute.paths import PathGuard
from flowruntime.execute.secrets import SecretStore
from flowruntime.telemetry.metrics import Metrics
from flowruntime.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from flowcore.context import HttpClient, LogLevel
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.execute.watchdog import Watchdog
    from flowruntime.http.client import GuardedHttpClient
    from flowruntime.models.gateway import Gateway


class Equipment:
    """Of one runtime; the arguments are those of `FlowRuntime`."""

    def __init__(  # noqa: PLR0913 - one keyword per setting
        self,
        *,
        clock: Callable[[], float],
        history: int,
        secrets: Mapping[str, str],
        roots: Iterable[str],
        http: HttpClient | None,
        http_options: tuple[bool, tuple[str, ...]],
        models: Callable[[], Gateway],
        watchdog: timedelta | None,
        seed: int | None,
    ) -> None:
        self.redactor = Redactor()
        self.events = EventBus(clock=clock, history=history, scrub=self.redactor.event)
        self.metrics = Metrics()
        self.clock = clock
        self.seed = seed
        self._rng = random.Random(seed)
        self._http = http
        self._own_http: GuardedHttpClient | None = None
        self._http_options = http_options
        """Private addresses allowed, and hosts allowed."""
        self.services = Services(
            bus=self.events,
            clock=clock,
            http=self._client,
            secrets=SecretStore(secrets, seen=self.redactor.add),
            paths=PathGuard(tuple(roots)),
            log=self.log,
            new_id=self.new_id,
            models=models,
            redact=self.redactor.value,
        )
        self._watchdog_s = None if watchdog is None else watchdog.total_seconds()
        self._watchdog: Watchdog | None = None
        self._stop_export: Callable[[], None] | None = None

    def new_id(self) -> str:
        """A UUIDv7 from the runtime's clock."""
        return str(
            new_uuid7(
                int(self.clock() * 1000),
                self._rng.randbytes(10) if self.seed is not None else os.urandom(10),
            )
        )

    def log(self, message: str, level: LogLevel, fields: Mapping[str, object]) -> None:
        """A log line without secrets."""
        from flowruntime.telemetry.logs import write_line

        shown = {name: self.redactor.value(value) for name, value in fields.items()}
        write_line(self.redactor.text(message), level, shown)

    def _client(self) -> HttpClient:
        if self._http is None:
            from flowruntime.http.client import GuardedHttpClient
            from flowruntime.http.guard import HttpSettings

            allow_private, hosts = self._http_options
            self._http = self._own_http = GuardedHttpClient(
                HttpSettings(allow_private=allow_private, allowed_hosts=hosts)
            )
        return self._http

    # --- watching -------------------------------------------------------------------------------------

    def watch_loop(self) -> None:
        """Begin to watch the running loop, once."""
        if self._watchdog is None and self._watchdog_s is not None:
            from flowruntime.execute.watchdog import Watchdog

            self._watchdog = Watchdog(self.events, self.log, threshold_s=self._watchdog_s)
            self._watchdog.start()

    def forgive(self) -> None:
        """What the loop has just been held up by is our own."""
        if self._watchdog is not None:
            self._watchdog.forgive()

    def watch(self, graph: ResolvedGraph) -> None:
        """Know whose code is whose, and load now what a node's first call would load while the loop waits."""
        if any(
            node.role not in ("source", "sink") and node.node.context is not None
            for node in graph.nodes.values()
        ):
            import_module("structlog")
        if any(node.definition.category == "http" for node in graph.nodes.values()):
            import_module("flowruntime.http.client")
        if any(node.definition.category in ("llm", "embedding") for node in graph.nodes.values()):
            import_module("flowruntime.models.rows")
        if self._watchdog is None:
            return
        self._watchdog.forgive()
        for node in graph.nodes.values():
            if node.role in ("source", "sink"):
                continue
            implementation = node.node.implementation
            target = implementation.execute if node.node.is_class else implementation
            self._watchdog.watch(node.id, getattr(target, "__code__", None))

    def export_telemetry(self, *, meter_provider: Any, tracer_provider: Any) -> None:
        """Give metrics and spans to OpenTelemetry, once."""
        from flowruntime.telemetry.otel import export_telemetry

        if self._stop_export is None:
            self._stop_export = export_telemetry(
                self.events, self.metrics, meter_provider=meter_provider, tracer_provider=tracer_provider
            )

    # --- closing --------------------------------------------------------------------------------------

    def close_with(self, closing: AsyncExitStack) -> None:
        """Close everything with the stack: last in, first out; the bus after what still publishes."""
        if self._stop_export is not None:
            closing.callback(self._stop_export)
        closing.push_async_callback(self.events.aclose)
        if self._watchdog is not None:
            closing.callback(self._watchdog.stop)
        if self._own_http is not None:
            closing.push_async_callback(self._own_http.close)
