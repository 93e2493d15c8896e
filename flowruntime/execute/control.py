"""Changing a workflow's worker while it works: limits, and single nodes that pause.

Owns: `LiveControl`, what is paused and since when, the events of both.
Does not own: pausing a whole run (run), carrying a limit or a pause out (flowruntime.flowcontrol).

Always holds: rows in work go on; a smaller limit takes effect as they finish; a paused node's rows wait where
they are and keep their credit, so that credit bounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flowcore.errors import ControlError
from flowcore.events import ExecutionEvent, LimitChanged, NodePaused, NodeResumed
from flowcore.findings import did_you_mean
from flowruntime.compile.bounds import is_waiting

if TYPE_CHECKING:
    from flowruntime.execute.worker import Worker
    from flowruntime.flowcontrol.permits import Limit


class LiveControl:
    """Of one worker.

    Args:
        worker: started.
        execution_id: for events; None: the worker serves many executions.
        publish: takes events.
    """

    def __init__(
        self, worker: Worker, execution_id: str | None, publish: Callable[[ExecutionEvent], None]
    ) -> None:
        self._worker = worker
        self._execution_id = execution_id
        self._publish = publish
        self._paused_at: dict[str, float] = {}

    @property
    def paused(self) -> tuple[str, ...]:
        """Nodes that take no rows now."""
        return tuple(self._paused_at)

    def set_limit(self, name: str, capacity: int) -> None:
        """Change a limit of the workflow: `node:classify`, `type:http.request`, `resource:gpu`, `*`.

        Raises:
            ControlError: the workflow has no limit of that name, or the capacity is none.
        """
        before = change(self._worker.limits, name, capacity, f"workflow {self._worker.workflow_id!r}")
        self._publish(
            LimitChanged(
                workflow_id=self._worker.workflow_id,
                execution_id=self._execution_id,
                limit=name,
                before=before,
                capacity=capacity,
            )
        )

    def pause_node(self, node_id: str, reason: str) -> None:
        """The node takes no further rows; those it works on go on. Nothing happens when it is paused already.

        Raises:
            ControlError: there is no such node, or it cannot be paused by itself.
        """
        pool = self._worker.pools.get(node_id)
        if pool is None:
            raise self._refused(node_id)
        if pool.paused:
            return
        pool.pause()
        self._paused_at[node_id] = self._worker.services.clock()
        self._publish(
            NodePaused(
                workflow_id=self._worker.workflow_id,
                execution_id=self._execution_id,
                node=node_id,
                reason=reason,
            )
        )

    def resume_node(self, node_id: str) -> None:
        """The node takes rows again. Nothing happens when it is not paused.

        Raises:
            ControlError: there is no such node, or it cannot be paused by itself.
        """
        pool = self._worker.pools.get(node_id)
        if pool is None:
            raise self._refused(node_id)
        if not pool.paused:
            return
        paused_s = self._worker.services.clock() - self._paused_at.pop(node_id)
        pool.resume()
        self._publish(
            NodeResumed(
                workflow_id=self._worker.workflow_id,
                execution_id=self._execution_id,
                node=node_id,
                paused_s=paused_s,
            )
        )

    def resume_all(self) -> None:
        """Every paused node takes rows again: the run is to finish what is inside."""
        for node_id in self.paused:
            self.resume_node(node_id)

    def _refused(self, node_id: str) -> ControlError:
        nodes = self._worker.graph.nodes
        able = [name for name in nodes if name in self._worker.pools]
        others = f"nodes that can be paused: {', '.join(able)}" if able else "no node of it can be paused"
        if node_id not in nodes:
            near = did_you_mean(node_id, nodes)
            return ControlError(f"there is no node {node_id!r}; {near}", node=node_id)
        if is_waiting(nodes[node_id]):  # an expanding node pulls its own generators, in each chain
            why = f"is a {nodes[node_id].role}, which is driven by its rows"
        elif nodes[node_id].role in ("source", "sink"):
            why = f"is a {nodes[node_id].role}"
        else:
            why = "is a plain function, which runs in one piece with its neighbours"
        return ControlError(
            f"node {node_id!r} {why} and cannot be paused by itself; pause the run, or another node "
            f"({others})",
            node=node_id,
        )


def set_shared_limit(
    limits: Mapping[str, Limit],
    workers: Sequence[Worker] | None,
    name: str,
    capacity: int,
    publish: Callable[[ExecutionEvent], None],
) -> None:
    """Change a limit of a whole runtime, or of the workers that answer a workflow's requests.

    Args:
        limits: of the runtime.
        workers: started; None: the runtime's own limit is meant.
        name: of the limit.
        capacity: rows at once.
        publish: takes events.

    Raises:
        ControlError: there is no limit of that name, the capacity is none, or there are no workers.
    """
    if workers is None:
        before = change(limits, name, capacity, "this runtime")
        publish(LimitChanged(workflow_id="", limit=name, before=before, capacity=capacity))
        return
    if not workers:
        raise ControlError(
            f"limit {name!r}: the workflow has answered no request yet, so nothing is limited; declare the "
            "limit in its settings, or execute it first",
            limit=name,
        )
    for worker in workers:
        LiveControl(worker, None, publish).set_limit(name, capacity)


def change(limits: Mapping[str, Limit], name: str, capacity: int, whose: str) -> int:
    """Give a limit another capacity; returns the one before.

    Raises:
        ControlError: there is no limit of that name, or the capacity is none.
    """
    limit = limits.get(name)
    if limit is None:
        raise ControlError(f"{whose} has no limit {name!r}; {_known(limits)}", limit=name)
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - a user's call
        raise ControlError(
            f"limit {name!r} takes a whole number of rows, at least 1, got {capacity!r}; to let nothing "
            "through, pause the node",
            limit=name,
            capacity=capacity,
        )
    before = limit.capacity
    limit.set_capacity(capacity)
    return before


def _known(limits: Iterable[str]) -> str:
    names = sorted(limits)
    return f"its limits are {', '.join(names)}" if names else "it has none"
