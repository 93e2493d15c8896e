"""What user code is given at run time: the contexts of nodes, batches, sources and sinks.

Owns: `CallContext`, `BatchCallContext`, `ConnectorContext`. Does not own: the services behind them
    (`Services`).

Always holds: a context is made only for code that takes one; its columns are looked up when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from flowcore.context import HttpClient, LogLevel, NodeState
from flowcore.events import NodeEvent
from flowcore.frame import Opened
from flowcore.plain import to_plain
from flowcore.values import Secret
from flowruntime.execute.paths import PathGuard
from flowruntime.execute.secrets import SecretStore

if TYPE_CHECKING:
    from flowruntime.events.bus import EventBus
    from flowruntime.flowcontrol.pool import Job
    from flowruntime.operators.kernel import Kernel


@dataclass(slots=True)
class Services:
    """What contexts hand on: made once per runtime."""

    bus: EventBus
    clock: Callable[[], float]
    http: Callable[[], HttpClient]
    secrets: SecretStore
    paths: PathGuard
    log: Callable[[str, LogLevel, Mapping[str, object]], None]
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class _Common:
    """One node or connector of one workflow."""

    __slots__ = ("_execution_id", "_node_id", "_services", "_task", "_workflow_id")

    def __init__(
        self,
        services: Services,
        workflow_id: str,
        node_id: str,
        execution_id: str | None = None,
        task: str | None = None,
    ) -> None:
        self._services = services
        self._workflow_id = workflow_id
        self._node_id = node_id
        self._execution_id = execution_id
        self._task = task

    @property
    def node_id(self) -> str:
        return self._node_id

    @property
    def workflow_id(self) -> str:
        return self._workflow_id

    @property
    def http(self) -> HttpClient:
        return self._services.http()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._services.clock(), UTC)

    def monotonic(self) -> float:
        from asyncio import get_running_loop

        return get_running_loop().time()

    async def sleep(self, delay: timedelta) -> None:
        from asyncio import sleep

        await sleep(delay.total_seconds())

    def log(self, message: str, *, level: LogLevel = "info", **fields: object) -> None:
        self._services.log(message, level, {"node": self._node_id, "workflow": self._workflow_id, **fields})
        bus = self._services.bus
        if bus.active and bus.wants(NodeEvent):
            data: object = message if not fields else {"message": message, **fields}
            self._publish("log", data, level)

    def emit(self, kind: Literal["progress", "log", "token", "data"], data: object) -> None:
        bus = self._services.bus
        if bus.active and bus.wants(NodeEvent):
            self._publish(kind, data, "info")

    def _publish(
        self, channel: Literal["progress", "log", "token", "data"], data: object, level: LogLevel
    ) -> None:
        self._services.bus.publish(
            NodeEvent(
                workflow_id=self._workflow_id,
                execution_id=self._own_execution_id(),
                task=self._task,
                node=self._node_id,
                channel=channel,
                data=to_plain(data),
                level=level,
            )
        )

    def _own_execution_id(self) -> str | None:
        return self._execution_id

    def secret(self, name: str) -> Secret:
        return self._services.secrets.resolve(name)


class CallContext(_Common):
    """One call of a node for one row."""

    __slots__ = ("_attempt", "_deadline", "_kernel", "_opened", "_row")

    def __init__(
        self,
        services: Services,
        kernel: Kernel,
        node_id: str,
        opened: Opened,
        row: int,
        attempt: int = 1,
        deadline: float | None = None,
    ) -> None:
        super().__init__(services, kernel.worker.workflow_id, node_id, None, kernel.task)
        self._kernel = kernel
        self._opened = opened
        self._row = row
        self._attempt = attempt
        self._deadline = deadline

    def _own_execution_id(self) -> str | None:
        return self.execution_id

    @property
    def execution_id(self) -> str:
        return self._kernel.execution_id(self._opened, self._row) or ""

    @property
    def mode(self) -> Literal["request", "stream"]:
        return "request" if self._kernel.task is None else "stream"

    @property
    def state(self) -> NodeState:
        return self._kernel.execution_of(self._opened, self._row).state

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def key(self) -> object:
        root, row = self._opened.root(self._row)
        return None if root.keys is None else root.keys[row]

    @property
    def headers(self) -> Mapping[str, object]:
        root, row = self._opened.root(self._row)
        return {} if root.headers is None else root.headers[row]

    @property
    def event_time(self) -> datetime | None:
        root, row = self._opened.root(self._row)
        time: Any = None if root.times is None else root.times[row]
        return time

    @property
    def record(self) -> object:
        root, row = self._opened.root(self._row)
        return None if root.records is None else root.records[row]

    @property
    def deadline(self) -> float | None:
        return self._deadline


class BatchCallContext(_Common):
    """One call of a batch node."""

    __slots__ = ("_attempt", "_deadline", "_members")

    def __init__(
        self,
        services: Services,
        kernel: Kernel,
        node_id: str,
        members: Sequence[Job],
        attempt: int,
        deadline: float | None,
    ) -> None:
        super().__init__(services, kernel.worker.workflow_id, node_id, None, kernel.task)
        self._members = members
        self._attempt = attempt
        self._deadline = deadline

    @property
    def deadlines(self) -> Sequence[float | None]:
        return [self._deadline] * len(self._members)

    @property
    def keys(self) -> Sequence[object]:
        found: list[object] = []
        for job in self._members:
            root, row = job.opened.root(job.row)
            found.append(None if root.keys is None else root.keys[row])
        return found

    @property
    def attempt(self) -> int:
        return self._attempt


class ConnectorContext(_Common):
    """What a source or sink is given."""

    __slots__ = ("_delivery", "_stopping")

    def __init__(
        self,
        services: Services,
        workflow_id: str,
        node_id: str,
        *,
        delivery: str,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(services, workflow_id, node_id)
        self._delivery = delivery
        self._stopping = stopping

    @property
    def delivery(self) -> str:
        return self._delivery

    def allowed_path(self, path: str) -> str:
        return self._services.paths.allowed(path)

    def stopping(self) -> bool:
        return self._stopping()


class SetupContext(_Common):
    """What `initialize` of a node is given: there is no row yet."""

    __slots__ = ()

    @property
    def execution_id(self) -> str:
        return ""

    @property
    def mode(self) -> Literal["request", "stream"]:
        return "stream"

    @property
    def state(self) -> NodeState:
        raise RuntimeError(
            f"node {self._node_id!r}: there is no execution yet in initialize, and so no state"
        )

    @property
    def attempt(self) -> int:
        return 1

    @property
    def key(self) -> object:
        return None

    @property
    def headers(self) -> Mapping[str, object]:
        return {}

    @property
    def event_time(self) -> datetime | None:
        return None

    @property
    def record(self) -> object:
        return None

    @property
    def deadline(self) -> float | None:
        return None
