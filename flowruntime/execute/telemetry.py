"""What the engine tells the event bus of nodes, and the meters behind progress events.

Owns: `RunTelemetry`: building node events only when someone listens.
Does not own: delivery (flowruntime.events), spans and metrics exporters (flowruntime.telemetry).

Always holds: with nobody listening a call costs an attribute test and, where a duration is recorded, one
clock read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from flowcore.definition import NodeDefinition
from flowcore.events import (
    ErrorInfo,
    NodeCompleted,
    NodeFailed,
    NodeRetrying,
    NodeStarted,
    RecordDeadLettered,
    StageProgress,
)
from flowcore.frame import Failure, Opened
from flowruntime.execute.meter import StageMeter
from flowruntime.substream.plain import description_of

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetter
    from flowcore.events import FailureHandling
    from flowruntime.events.bus import EventBus
    from flowruntime.operators.host import Caller


class RunTelemetry:
    """Node events of one worker.

    Args:
        bus: where they go.
        clock: Unix seconds.
        workflow_id: carried by every event.
        capture: completed nodes tell what they gave; off unless the workflow's settings ask for it.
    """

    def __init__(
        self, bus: EventBus, clock: Callable[[], float], workflow_id: str, *, capture: bool = False
    ) -> None:
        self.bus = bus
        self.clock = clock
        self.workflow_id = workflow_id
        self.capture = capture
        self.meters: dict[str, StageMeter] = {}

    @property
    def watched(self) -> bool:
        """Someone wants to hear of single nodes."""
        bus = self.bus
        return bus.active and (bus.wants(NodeCompleted) or bus.wants(NodeStarted))

    @property
    def metered(self) -> bool:
        """Someone wants to see progress."""
        return self.bus.active and self.bus.wants(StageProgress)

    def meter(self, stage: str) -> StageMeter:
        found = self.meters.get(stage)
        if found is None:
            found = self.meters[stage] = StageMeter()
        return found

    def node_started(self, kernel: Caller, node: str, opened: Opened, row: int) -> float:
        """When the node began, Unix seconds; 0.0 when nobody will ask."""
        bus = self.bus
        if not bus.active:
            return self.clock() if kernel.recording else 0.0
        now = self.clock()
        if bus.wants(NodeStarted):
            bus.publish(
                NodeStarted(
                    at=now,
                    workflow_id=self.workflow_id,
                    execution_id=kernel.execution_id(opened, row),
                    task=kernel.task,
                    node=node,
                    started_at=now,
                )
            )
        return now

    def node_completed(
        self,
        kernel: Caller,
        node: str,
        opened: Opened,
        row: int,
        started: float,
        ended: float,
        *,
        dropped: bool,
        value: Any = UNSET,
    ) -> None:
        bus = self.bus
        if bus.active and bus.wants(NodeCompleted):
            bus.publish(
                NodeCompleted(
                    at=ended,
                    workflow_id=self.workflow_id,
                    execution_id=kernel.execution_id(opened, row),
                    task=kernel.task,
                    node=node,
                    started_at=started,
                    ended_at=ended,
                    dropped=int(dropped),
                    outputs=self._outputs(kernel, node, value) if self.capture and not dropped else UNSET,
                )
            )

    def _outputs(self, kernel: Caller, node: str, value: Any) -> Any:
        """What a node gave, by port; for workflows that ask for capture."""
        definition = kernel.plan.graph.nodes[node].definition
        if value is UNSET or not isinstance(definition, NodeDefinition):
            return UNSET
        if kernel.streams is not None:
            value = description_of(value)  # whoever is told of a live stream must not take its items
        if not definition.structured_output:
            return {"out": value}
        ports = {port.name: getattr(value, port.name, UNSET) for port in definition.outputs}
        return {name: given for name, given in ports.items() if given is not UNSET}

    def node_failed(
        self,
        kernel: Caller,
        node: str,
        opened: Opened,
        row: int,
        failure: Failure,
        started: float,
        then: FailureHandling,
    ) -> None:
        bus = self.bus
        if bus.active and bus.wants(NodeFailed):
            now = self.clock()
            bus.publish(
                NodeFailed(
                    workflow_id=self.workflow_id,
                    execution_id=kernel.execution_id(opened, row),
                    task=kernel.task,
                    node=node,
                    started_at=started or now,
                    ended_at=now,
                    error=ErrorInfo.of(failure.error),
                    attempt=failure.attempts,
                    then=then,
                )
            )

    def dead_lettered(self, kernel: Caller, letters: Sequence[DeadLetter]) -> None:
        """Letters of one failure are kept."""
        bus = self.bus
        if not bus.active or not bus.wants(RecordDeadLettered):
            return
        for letter in letters:
            bus.publish(
                RecordDeadLettered(
                    workflow_id=self.workflow_id,
                    execution_id=letter.execution_id,
                    task=kernel.task,
                    node=letter.node,
                    letter_id=letter.id,
                    error=letter.error,
                    attempts=letter.attempts,
                    source=letter.origin.source,
                    partition=letter.origin.partition,
                )
            )

    def node_retrying(
        self,
        kernel: Caller,
        node: str,
        opened: Opened,
        row: int,
        error: BaseException,
        attempt: int,
        delay_s: float,
    ) -> None:
        bus = self.bus
        if bus.active and bus.wants(NodeRetrying):
            policy = kernel.plan.graph.nodes[node].policies.retry
            bus.publish(
                NodeRetrying(
                    workflow_id=self.workflow_id,
                    execution_id=kernel.execution_id(opened, row),
                    task=kernel.task,
                    node=node,
                    attempt=attempt,
                    max_attempts=policy.max_attempts if policy is not None else 1,
                    delay_s=delay_s,
                    error=ErrorInfo.of(error),
                )
            )
