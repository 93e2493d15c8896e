"""What user code is given at run time: the contexts of nodes, batches, sources and sinks.

Owns: `CallContext`, `BatchCallContext`, `ConnectorContext`. Does not own: the services behind them
    (`Services`).

Always holds: a context is made only for code that takes one; its columns are looked up when asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flowcore.context import HttpClient, LogLevel, NodeState, OnClose
from flowcore.errors import ContractError
from flowcore.events import NodeEvent
from flowcore.frame import Opened
from flowcore.plain import to_plain
from flowcore.values import Secret
from flowruntime.execute.paths import PathGuard
from flowruntime.execute.secrets import SecretStore
from flowruntime.options import seconds_of

if TYPE_CHECKING:
    from flowcore.llm.tools import BoundTool, ToolSpec
    from flowcore.waits import WaitRequest
    from flowruntime.events.bus import EventBus
    from flowruntime.flowcontrol.jobs import Job
    from flowruntime.models.bound import BoundModels
    from flowruntime.models.gateway import Gateway
    from flowruntime.operators.host import Host
    from flowruntime.operators.kernel import Kernel
    from flowruntime.substream.live import LiveStream

T = TypeVar("T")


def _no_tools(worker: Host, node_id: str, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
    del worker, specs
    raise ContractError(f"node {node_id!r} asks for tools, and nothing here runs them", node=node_id)


@dataclass(slots=True)
class Services:
    """What contexts hand on: made once per runtime."""

    bus: EventBus
    clock: Callable[[], float]
    http: Callable[[], HttpClient]
    secrets: SecretStore
    paths: PathGuard
    log: Callable[[str, LogLevel, Mapping[str, object]], None]
    new_id: Callable[[], str]
    """UUIDv7."""
    models: Callable[[], Gateway]
    """Made when a model is called first."""
    redact: Callable[[object], Any] = lambda value: value
    """Masks secrets; gives the same object back where it holds none."""
    tools: Callable[[Host, str, Sequence[ToolSpec]], Sequence[BoundTool]] = _no_tools
    """Makes the tools of a node ready."""
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

        await sleep(seconds_of(delay, "sleep"))

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

    __slots__ = ("_attempt", "_deadline", "_kernel", "_models", "_opened", "_row", "_waits")

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
        self._waits: Iterator[int] | None = None
        self._models: BoundModels | None = None

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
    def models(self) -> BoundModels:
        if self._models is None:
            from flowruntime.models.rows import models_of_row

            self._models = models_of_row(
                self._services.models(),
                self._kernel,
                self._node_id,
                self._opened,
                self._row,
                self._deadline,
                # of this context's parts, not of itself: each call would leave a cycle to the collector
                partial(_put_off, self._kernel, self._node_id, self._opened, self._row, self._numbers()),
            )
        return self._models

    @property
    def deadline(self) -> float | None:
        return self._deadline

    def tools(self, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
        return self._services.tools(self._kernel.worker, self._node_id, specs)

    async def sleep(self, delay: timedelta) -> None:
        seconds = seconds_of(delay, "sleep")
        if not await _put_off(self._kernel, self._node_id, self._opened, self._row, self._numbers(), seconds):
            await super().sleep(delay)

    def _numbers(self) -> Iterator[int]:
        """Of what the call waits for, in order."""
        if self._waits is None:
            self._waits = count()
        return self._waits

    async def wait(self, request: WaitRequest) -> Any:
        kernel, graph = self._kernel, self._kernel.plan.graph
        journal = kernel.holds if kernel.journal is None else kernel.journal
        if journal is None or not graph.nodes[self._node_id].node.waits:
            raise ContractError(
                f"node {self._node_id!r} called ctx.wait, and its type does not say that it may wait; "
                "declare it with waits=True, so that its executions are kept",
                node=self._node_id,
            )
        return await journal.wait(self._node_id, self._opened, self._row, next(self._numbers()), request)

    def stream(
        self, items: AsyncIterable[T], *, capacity: int = 64, on_close: OnClose | None = None
    ) -> LiveStream[T]:
        return self._kernel.stream_of(
            self._node_id, self._opened, self._row, items, capacity=capacity, on_close=on_close
        )


async def _put_off(
    kernel: Kernel, node_id: str, opened: Opened, row: int, numbers: Iterator[int], seconds: float
) -> bool:
    """Store the row; True: it is back. False: the rows of this node are not stored."""
    holds = kernel.holds
    if holds is None or not holds.delays(node_id):
        return False
    await holds.delay(node_id, opened, row, next(numbers), timedelta(seconds=seconds))
    return True


class BatchCallContext(_Common):
    """One call of a batch node."""

    __slots__ = ("_attempt", "_deadline", "_kernel", "_members", "_models")

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
        self._kernel = kernel
        self._members = members
        self._attempt = attempt
        self._deadline = deadline
        self._models: BoundModels | None = None

    @property
    def models(self) -> BoundModels:
        if self._models is None:
            from flowruntime.models.rows import models_of_batch

            self._models = models_of_batch(
                self._services.models(), self._kernel, self._node_id, self._members, self._deadline
            )
        return self._models

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

    def stream(
        self, items: AsyncIterable[T], *, row: int, capacity: int = 64, on_close: OnClose | None = None
    ) -> LiveStream[T]:
        if not 0 <= row < len(self._members):
            raise ContractError(
                f"node {self._node_id!r}: ctx.stream(..., row={row!r}) names no row of a call for "
                f"{len(self._members)}; rows are counted from 0",
                node=self._node_id,
                row=row,
            )
        job = self._members[row]
        return self._kernel.stream_of(
            self._node_id, job.opened, job.row, items, capacity=capacity, on_close=on_close
        )


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
    def models(self) -> BoundModels:
        from flowruntime.models.rows import models_of_node

        return models_of_node(self._services.models(), self._workflow_id, self._node_id)

    @property
    def deadline(self) -> float | None:
        return None

    def tools(self, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
        del specs
        raise RuntimeError(f"node {self._node_id!r}: there is no row yet in initialize that could use tools")

    async def wait(self, request: WaitRequest) -> Any:
        del request
        raise RuntimeError(f"node {self._node_id!r}: there is no row yet in initialize that could wait")

    def stream(
        self, items: AsyncIterable[T], *, capacity: int = 64, on_close: OnClose | None = None
    ) -> LiveStream[T]:
        del items, capacity, on_close
        raise RuntimeError(
            f"node {self._node_id!r}: there is no row yet in initialize, and so no stream of one"
        )
