"""Contexts for calling a node, a source or a sink by hand, as a test does: virtual time, recorded logs.

Owns: `VirtualTime`, `StandaloneNodeContext`, `StandaloneSourceContext`, `StandaloneSinkContext`, `Logged`,
`Emitted`. Does not own: the contexts of a real run (the runtime makes those).

Always holds: nothing outside the test is touched: no network, no environment, no clock; secrets and
responses are those the test gives.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, NamedTuple

from flowcore.context import HttpClient, HttpRequest, HttpResponse, LogLevel
from flowcore.errors import ContractError, PathRefusedError, SecretNotFoundError
from flowcore.values import Secret

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


class Logged(NamedTuple):
    """One call of `ctx.log`."""

    level: LogLevel
    message: str
    fields: Mapping[str, object]


class Emitted(NamedTuple):
    """One call of `ctx.emit`."""

    kind: Literal["progress", "log", "token", "data"]
    data: object


class VirtualTime:
    """Time that moves when everybody sleeps: a sleep takes no real time, and sleepers wake in order.

    Holds: one entry per sleeper.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._moving: asyncio.AbstractEventLoop | None = None

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    def advance(self, delay: timedelta) -> None:
        """Let time pass without anybody sleeping: what a slow caller does."""
        self._elapsed_s += delay.total_seconds()

    async def sleep(self, delay: timedelta) -> None:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        due = self._elapsed_s + max(0.0, delay.total_seconds())
        heapq.heappush(self._sleepers, (due, next(self._order), woken))
        if self._moving is not loop:
            self._moving = loop
            loop.call_soon(self._wake_next, loop)
        await woken

    def _wake_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the earliest sleeper go; the next one only after that one had its turn."""
        while self._sleepers:
            due, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._elapsed_s = max(self._elapsed_s, due)
                woken.set_result(None)
                loop.call_soon(self._wake_next, loop)
                return
        self._moving = None


class NoHttp:
    """An `HttpClient` that refuses: the test gave no other."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        raise ContractError(
            f"the node sent {request.method} {request.url} and the context has no http client; pass http=...",
            url=request.url,
        )


class _State:
    def __init__(self) -> None:
        self.data: MutableMapping[str, Any] = {}


class _Standalone:
    """What the three contexts share."""

    def __init__(
        self,
        *,
        node_id: str = "node",
        workflow_id: str = "workflow",
        time: VirtualTime | None = None,
        secrets: Mapping[str, str] | None = None,
        http: HttpClient | None = None,
    ) -> None:
        self.node_id = node_id
        self.workflow_id = workflow_id
        self.time = time or VirtualTime()
        self.secrets = dict(secrets or {})
        self.http: HttpClient = http or NoHttp()
        self.logs: list[Logged] = []
        self.events: list[Emitted] = []

    def now(self) -> datetime:
        return self.time.now()

    def monotonic(self) -> float:
        return self.time.monotonic()

    async def sleep(self, delay: timedelta) -> None:
        await self.time.sleep(delay)

    def log(self, message: str, *, level: LogLevel = "info", **fields: object) -> None:
        self.logs.append(Logged(level, message, fields))

    def emit(self, kind: Literal["progress", "log", "token", "data"], data: object) -> None:
        self.events.append(Emitted(kind, data))

    def secret(self, name: str) -> Secret:
        text = self.secrets.get(name)
        if text is None:
            known = ", ".join(map(repr, self.secrets)) or "none"
            raise SecretNotFoundError(
                f"the test gave no secret {name!r}; it gave {known}; pass secrets={{...}}", name=name
            )
        return Secret(text, name=name)


class StandaloneNodeContext(_Standalone):
    """A `NodeContext` for calling a node in a test: `await lookup("1.2.3.4", StandaloneNodeContext())`."""

    def __init__(  # noqa: PLR0913 - one keyword per attribute
        self,
        *,
        node_id: str = "node",
        workflow_id: str = "workflow",
        execution_id: str = "execution",
        time: VirtualTime | None = None,
        secrets: Mapping[str, str] | None = None,
        http: HttpClient | None = None,
        attempt: int = 1,
        key: object = None,
        headers: Mapping[str, object] | None = None,
        event_time: datetime | None = None,
        record: object = None,
        timeout: timedelta | None = None,
    ) -> None:
        super().__init__(node_id=node_id, workflow_id=workflow_id, time=time, secrets=secrets, http=http)
        self.execution_id = execution_id
        self.mode: Literal["request", "stream"] = "stream"
        self.state = _State()
        self.attempt = attempt
        self.key = key
        self.headers: Mapping[str, object] = dict(headers or {})
        self.event_time = event_time
        self.record = record
        self.deadline = None if timeout is None else self.monotonic() + timeout.total_seconds()


class _Connecting(_Standalone):
    def __init__(
        self,
        *,
        node_id: str = "node",
        workflow_id: str = "workflow",
        time: VirtualTime | None = None,
        secrets: Mapping[str, str] | None = None,
        http: HttpClient | None = None,
        delivery: str = "at_least_once",
        roots: Sequence[str] | None = None,
    ) -> None:
        """`roots`: folders that `allowed_path` accepts; None accepts every path."""
        super().__init__(node_id=node_id, workflow_id=workflow_id, time=time, secrets=secrets, http=http)
        self.delivery = delivery
        self.roots = None if roots is None else [os.path.realpath(root) for root in roots]

    def allowed_path(self, path: str) -> str:
        """`path` made absolute, links followed.

        Raises:
            PathRefusedError: it lies outside the roots.
        """
        real = os.path.realpath(path)
        if self.roots is None or any(os.path.commonpath([root, real]) == root for root in self.roots):
            return real
        raise PathRefusedError(
            f"{path!r} is {real!r}, outside the allowed roots {self.roots}", path=path, roots=list(self.roots)
        )


class StandaloneSourceContext(_Connecting):
    """A `SourceContext` for reading a source in a test; `stop()` makes `stopping()` true."""

    _stopping = False

    def stop(self) -> None:
        self._stopping = True

    def stopping(self) -> bool:
        return self._stopping


class StandaloneSinkContext(_Connecting):
    """A `SinkContext` for writing a sink in a test."""
