"""What a node, source or sink may ask of the runtime, as protocols.

Owns: `NodeContext`, `BatchContext`, `SourceContext`, `SinkContext`, `NodeState` and the shape of an HTTP
    exchange.
Does not own: how any of it is done; the runtime implements these, and tests may too.

Always holds: no client type of a third party appears here; time comes from the context, never from the clock.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from flowcore.llm.calls import Models
    from flowcore.llm.tools import BoundTool, ToolSpec
    from flowcore.values import Secret, Stream
    from flowcore.waits import WaitRequest

T = TypeVar("T")

LogLevel = Literal["debug", "info", "warning", "error"]

OnClose = Callable[[], Awaitable[object]]
"""Clean-up of a Stream's producer: awaited once when the stream is over, however it came to that."""


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One outbound HTTP request."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes = b""
    timeout: timedelta = timedelta(seconds=30)
    """For the whole exchange: connect, send, wait, read the body."""
    connect_timeout: timedelta | None = None
    """For a connection to each address of the host, with its TLS; None, here and below: only `timeout`."""
    first_byte_timeout: timedelta | None = None
    """From the call to the first byte: of `send` that of the headers, of `stream` that of the body."""
    idle_timeout: timedelta | None = None
    """For each further piece of the body: the longest silence."""
    max_body_bytes: int = 16 * 1024 * 1024
    """Largest decoded response body; a larger one raises, whatever its compressed size."""
    follow_redirects: bool = False


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: the body is whole and decoded (gzip and the like undone)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    """The address that answered, after redirects."""
    elapsed_s: float


class HttpStream(Protocol):
    """A response whose body is still coming."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        ...

    @property
    def url(self) -> str:
        """The address that answers, after redirects."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The decoded body in the pieces it comes in, none of them empty; to be read once.

        Together they are at most `max_body_bytes`.

        Raises:
            HttpTimeoutError: the first byte, the next one or the end is late.
            HttpConnectionError: the connection broke before the end.
            HttpBodyTooLargeError, HttpDecodingError: as named; the rest is not read.
            ContractError: it was read before.
        """
        ...


class HttpClient(Protocol):
    """Sends requests through the operator's guard.

    Addresses are checked, sizes capped, and a deadline holds for the whole.
    """

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The response, whatever its status.

        Raises:
            HttpRefusedError: the guard does not allow the address or scheme.
            HttpTimeoutError, HttpConnectionError, HttpBodyTooLargeError: as named.
        """
        ...

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        """The response as soon as its headers are there, whatever its status; for `async with`.

        Leaving the block ends the exchange at once: what was not read is never read.

        Raises:
            HttpRefusedError, HttpTimeoutError, HttpConnectionError: as for `send`, on entering.
        """
        ...


class NodeState(Protocol):
    """Values shared by all nodes of one execution and nothing else."""

    @property
    def data(self) -> MutableMapping[str, Any]: ...


class CommonContext(Protocol):
    """What every piece of user code is given."""

    @property
    def node_id(self) -> str:
        """The name the user gave the node; nested workflows prefix theirs: `outer/inner`."""
        ...

    @property
    def workflow_id(self) -> str: ...

    @property
    def http(self) -> HttpClient: ...

    def now(self) -> datetime:
        """Wall-clock time, UTC, from the runtime's clock (virtual in tests)."""
        ...

    def monotonic(self) -> float:
        """Seconds on the loop's clock; only differences mean anything."""
        ...

    async def sleep(self, delay: timedelta) -> None: ...

    def log(self, message: str, *, level: LogLevel = "info", **fields: object) -> None:
        """A log line and, when someone listens, a NodeEvent of kind `log`."""
        ...

    def emit(self, kind: Literal["progress", "log", "token", "data"], data: object) -> None:
        """Publish a NodeEvent; costs next to nothing when nobody listens."""
        ...

    def secret(self, name: str) -> Secret:
        """The secret of that name, resolved now from the environment or a file.

        Raises:
            SecretNotFoundError: no such secret is set.
        """
        ...


class NodeContext(CommonContext, Protocol):
    """One call of a node for one row."""

    @property
    def execution_id(self) -> str:
        """The request, or the root record of a stream with all its children."""
        ...

    @property
    def mode(self) -> Literal["request", "stream"]:
        """Whether the row belongs to a request or to a continuous run."""
        ...

    @property
    def state(self) -> NodeState: ...

    @property
    def attempt(self) -> int:
        """1 for the first try."""
        ...

    @property
    def key(self) -> object:
        """Key of the root record; None when the source gave none."""
        ...

    @property
    def headers(self) -> Mapping[str, object]: ...

    @property
    def event_time(self) -> datetime | None: ...

    @property
    def record(self) -> object:
        """The source's row this value came from."""
        ...

    @property
    def models(self) -> Models:
        """Calls of models on behalf of this row: `await ctx.models.generate(request, target)`."""
        ...

    @property
    def deadline(self) -> float | None:
        """On `monotonic()`; None without a timeout."""
        ...

    def tools(self, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
        """Node types and workflows, ready to be used on behalf of this row.

        Args:
            specs: the same object each time: what they need is made once and kept.

        Raises:
            ConfigError: a type or workflow is not there, is no tool, or two have one name.
            ValidationFailedError: a workflow that cannot run.
        """
        ...

    async def wait(self, request: WaitRequest) -> Any:
        """What a person or a system answers; for nodes that say `waits=True`, in requests and runs.

        Where there is no answer yet the call ends here, its clean-up included, and the row waits: nothing of
        it is kept in memory. When there is one the node is called anew, for the same row, and `wait` gives
        the answer at once. So what stands before it runs again: let another node do what must happen once.

        Args:
            request: what is asked; the n-th `wait` of a call is the same one each time.

        Raises:
            WaitExpiredError: time was up, and `on_timeout` is `fail`.
            ContractError: the node does not say `waits=True`, or the request makes no sense.
        """
        ...

    def stream(
        self, items: AsyncIterable[T], *, capacity: int = 64, on_close: OnClose | None = None
    ) -> Stream[T]:
        """A Stream of what `items` yields, to be returned as the row's value, or inside it.

        Nothing is asked of `items` before somebody reads the stream; then it may run ahead by `capacity`
        items. The row settles only when the stream is over: ended, failed, or cancelled because its row was
        dropped, failed, or finished without anybody reading it. Then `items` is closed (`aclose`), and
        `on_close` awaited: for what was opened before, such as the connection `items` reads from.

        Args:
            items: an asynchronous generator, or any asynchronous iterable.
            capacity: items that may be ready and not taken, at least 1.
            on_close: awaited once, after `items` was closed, also when no item was ever asked for.

        Raises:
            ContractError: `items` is not asynchronous, or `capacity` is below 1.
        """
        ...


class BatchContext(CommonContext, Protocol):
    """One call of a batch node for several rows of any executions: no state, one deadline and key per row."""

    @property
    def deadlines(self) -> Sequence[float | None]: ...

    @property
    def keys(self) -> Sequence[object]: ...

    @property
    def models(self) -> Models:
        """Calls of models on behalf of all rows of this call."""
        ...

    @property
    def attempt(self) -> int: ...

    def stream(
        self, items: AsyncIterable[T], *, row: int, capacity: int = 64, on_close: OnClose | None = None
    ) -> Stream[T]:
        """A Stream for one of the rows, see `NodeContext.stream`.

        Args:
            items: an asynchronous iterable.
            row: the place of the row in this call, from 0; the stream is part of that row's result.
            capacity: items that may be ready and not taken.
            on_close: awaited once when the stream is over.

        Raises:
            ContractError: there is no such row, `items` is not asynchronous, or `capacity` is below 1.
        """
        ...


class SourceContext(CommonContext, Protocol):
    """What a source is given."""

    @property
    def delivery(self) -> str: ...

    def allowed_path(self, path: str) -> str:
        """`path` made absolute.

        Raises:
            PathRefusedError: outside the roots the operator allows.
        """
        ...

    def stopping(self) -> bool: ...


class SinkContext(CommonContext, Protocol):
    """What a sink is given."""

    @property
    def delivery(self) -> str: ...

    def allowed_path(self, path: str) -> str: ...
