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
from collections.abc import AsyncIterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, NamedTuple, TypeVar

from flowcore.context import HttpClient, HttpRequest, HttpResponse, HttpStream, LogLevel, OnClose
from flowcore.errors import ContractError, PathRefusedError, SecretNotFoundError, ValidationFailedError
from flowcore.llm.calls import Models
from flowcore.llm.provider import ProviderFactory
from flowcore.llm.tools import BoundTool, ToolSpec
from flowcore.values import Secret
from flowcore.waits import WaitRequest, check_request, problems_of
from flowruntime.options import seconds_of
from flowruntime.substream.live import LiveStream
from flowruntime.substream.production import Production
from flowruntime.testing.models import DirectModels

T = TypeVar("T")

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
        due = self._elapsed_s + seconds_of(delay, "sleep")
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
        raise _no_client(request)

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        raise _no_client(request)


def _no_client(request: HttpRequest) -> ContractError:
    return ContractError(
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
        answers: Sequence[Any] = (),
        tools: Sequence[BoundTool] = (),
        providers: Mapping[str, ProviderFactory] | None = None,
        models: Models | None = None,
    ) -> None:
        """`answers`: what `wait` gives, one after the other; an exception among them is raised.

        `providers`: of models, by name, called straight; or `models`, what `ctx.models` is.
        """
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
        direct = DirectModels(providers or {}, self, lambda: self.now().timestamp())
        self.models: Models = direct if models is None else models
        self.model_calls = direct.calls
        """What the node has asked of `providers`."""
        self.answers = list(answers)
        self._tools = list(tools)
        self.waits: list[WaitRequest] = []
        """What the node has asked."""
        self.streams: list[LiveStream[Any]] = []
        """Those the node has made; nothing but their reader, or `cancel()`, ends them here."""

    def tools(self, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
        """The test's tools, whatever is asked for: nothing here runs nodes and workflows."""
        del specs
        return self._tools

    async def wait(self, request: WaitRequest) -> Any:
        """The next of `answers`, checked as a real one is.

        Raises:
            ContractError: the request makes no sense, or the test gave no answer to it.
            ValidationFailedError: the answer is not what was asked for.
        """
        check_request(request, self.node_id)
        self.waits.append(request)
        if not self.answers:
            raise ContractError(
                f"node {self.node_id!r} waits for {request.title or request.kind!r} and the test gave no "
                "answer to it; pass answers=[...]",
                node=self.node_id,
            )
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        found = problems_of(answer, request.kind, request.schema)
        if found:
            raise ValidationFailedError(found, what="the answer of the test")
        return answer

    def stream(
        self, items: AsyncIterable[T], *, row: int = 0, capacity: int = 64, on_close: OnClose | None = None
    ) -> LiveStream[T]:
        """A live Stream that belongs to no row, `row` being for nodes that take a BatchContext.

        What its clean-up fails with is in `logs`.
        """
        del row
        made = LiveStream(
            Production(
                items,
                node_id=self.node_id,
                capacity=capacity,
                on_close=on_close,
                report=lambda fault: self.log(f"node {self.node_id!r} {fault}", level="error"),
            )
        )
        self.streams.append(made)
        return made


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
