"""`ctx.models` of rows, batches and nodes that start: who they are, and how their calls are named.

Owns: making the `Origin` of each. Does not own: contexts (flowruntime.execute.context), calls (bound).

Always holds: nothing is looked up before a node makes its first call for the row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flowruntime.models.bound import BoundModels
from flowruntime.models.budgets import Life, Spender
from flowruntime.models.origin import Naming, Origin, lineage_of, prefix_of, record_name

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.flowcontrol.jobs import Job
    from flowruntime.models.gateway import Gateway
    from flowruntime.operators.kernel import Kernel


def models_of_row(
    gateway: Gateway,
    kernel: Kernel,
    node: str,
    opened: Opened,
    row: int,
    deadline: float | None,
    put_off: Callable[[float], Awaitable[bool]],
) -> BoundModels:
    """For one row."""
    root, root_row = opened.root(row)
    origin = Origin(
        node=node,
        workflow=kernel.worker.workflow_id,
        execution_id=partial(kernel.execution_id, opened, row),
        task=kernel.task,
        spender=_spender(kernel, None if root.keys is None else root.keys[root_row], opened, row),
        deadline=deadline,
        max_hold_s=kernel.plan.graph.settings.max_hold.total_seconds(),
        put_off=put_off,
        naming=partial(_naming, kernel, node, opened, row),
    )
    return BoundModels(gateway, origin)


def models_of_batch(
    gateway: Gateway, kernel: Kernel, node: str, members: Sequence[Job], deadline: float | None
) -> BoundModels:
    """For one batch: its calls belong to the last of its records, and are found by what they ask."""
    last = max(members, key=lambda job: _place(job.opened, job.row))
    keys = {_key(job.opened, job.row) for job in members}
    origin = Origin(
        node=node,
        workflow=kernel.worker.workflow_id,
        task=kernel.task,
        spender=_spender(kernel, keys.pop() if len(keys) == 1 else None, last.opened, last.row),
        deadline=deadline,
        max_hold_s=kernel.plan.graph.settings.max_hold.total_seconds(),
        naming=partial(_naming_of_batch, kernel, node, last.opened, last.row),
    )
    return BoundModels(gateway, origin)


def models_of_node(gateway: Gateway, workflow: str, node: str) -> BoundModels:
    """For a node that has no row yet."""
    return BoundModels(gateway, Origin(node=node, workflow=workflow))


def _spender(kernel: Kernel, key: object, opened: Opened, row: int) -> Spender:
    if kernel.task is not None:
        return Spender(kernel.worker.workflow_id, key, kernel.worker, kernel.drain)
    execution = kernel.execution_of(opened, row)
    if execution.life is None:
        execution.life = Life()
    return Spender(kernel.worker.workflow_id, key, execution.life)


def _naming(kernel: Kernel, node: str, opened: Opened, row: int) -> Naming | None:
    """How the calls of a row are named; None where its record never comes again."""
    graph = kernel.plan.graph
    root, root_row = opened.root(row)
    if kernel.task is None:
        if kernel.journal is None:
            return None  # the request ends with this process
        record = f"execution {kernel.execution_of(opened, row).id}"
    elif graph.settings.delivery == "at_most_once":
        return None
    else:
        record = record_name(graph.name, root.scope, kernel.task, root, root_row)
    lineage = lineage_of(opened, row)
    index = root.first_index + root_row

    def noted() -> None:
        if kernel.task is not None:
            kernel.journaled[index] = record

    prefix = prefix_of(node, graph.nodes[node].raw_config, lineage)
    return Naming(record, prefix, placed=lineage is not None, noted=noted)


def _naming_of_batch(kernel: Kernel, node: str, opened: Opened, row: int) -> Naming | None:
    """Under one of its records; batches are made up differently each time."""
    naming = _naming(kernel, node, opened, row)
    if naming is not None:
        naming.placed, naming.anywhere = False, True
        naming.prefix = prefix_of(node, kernel.plan.graph.nodes[node].raw_config, None)
    return naming


def _place(opened: Opened, row: int) -> int:
    root, root_row = opened.root(row)
    return root.first_index + root_row


def _key(opened: Opened, row: int) -> Any:
    root, root_row = opened.root(row)
    key = None if root.keys is None else root.keys[root_row]
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key
