"""What a node, source or sink may ask of the runtime, as protocols.

Owns: `NodeContext`, `BatchContext`, `SourceContext`, `SinkContext`, `NodeState` and the shape of an HTTP
    exchange.
Does not own: how any of it is done; the runtime implements these, and tests may too.

Always holds: no client type of a third party appears here; time comes from the context, never from the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from flowcore.values import Secret

LogLevel = Literal["debug", "info", "warning", "error"]


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One outbound HTTP request."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes = b""
    timeout: timedelta = timedelta(seconds=30)
    """For the whole exchange: connect, send, wait, read the body."""
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
    def deadline(self) -> float | None:
        """On `monotonic()`; None without a timeout."""
        ...


class BatchContext(CommonContext, Protocol):
    """One call of a batch node for several rows of any executions: no state, one deadline and key per row."""

    @property
    def deadlines(self) -> Sequence[float | None]: ...

    @property
    def keys(self) -> Sequence[object]: ...

    @property
    def attempt(self) -> int: ...


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
