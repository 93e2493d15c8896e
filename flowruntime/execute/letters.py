"""What a dead letter says: from a failure in a chain to the letters of the records it stems from.

Owns: `LetterMaker`, the hash of a workflow.
Does not own: writing letters (flowruntime.flowcontrol.letters), their rules (flowcore.dead_letters).

Always holds: no secret known to the runtime is in a letter; what was masked or has no plain form is named in
`lossy`; a letter tells which record failed even when the failing row is a descendant of it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowcore.dead_letters import DeadLetter, Origin, error_info, kept
from flowcore.dump import to_document
from flowcore.errors import FieldMissingError, ValidationFailedError
from flowcore.frame import Failure, Opened
from flowruntime.execute.inputs import SOURCE_PORT
from flowruntime.operators.at import field_of

if TYPE_CHECKING:
    from flowcore.workflow import Workflow
    from flowruntime.execute.execution import Execution
    from flowruntime.operators.kernel import Kernel

ITEMS: Final = "$items"
"""The source the runtime puts before a workflow without one, for `rt.stream`."""

Redact = Callable[[object], Any]


class LetterMaker:
    """Makes the letters of one workflow.

    Args:
        workflow: as declared; None: only its name is known.
        name: of the workflow.
        new_id: UUIDv7.
        clock: Unix seconds.
        redact: masks secrets; gives the same object back where it holds none.
    """

    def __init__(
        self,
        workflow: Workflow | None,
        name: str,
        *,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        redact: Redact,
    ) -> None:
        self._workflow = workflow
        self._name = name
        self._new_id = new_id
        self._clock = clock
        self._redact = redact
        self._hash: str | None = None

    def letters(
        self, kernel: Kernel, opened: Opened, row: int, failure: Failure, value: object, *, undecoded: bool
    ) -> list[DeadLetter]:
        """One letter per root record the row stems from; the first one tells what the node was given."""
        lossy: dict[str, str] = {}
        told = msgspec.UNSET if value is msgspec.UNSET else self._kept("value", value, lossy)
        error = self._redact(error_info(failure.error))
        made: list[DeadLetter] = []
        for root, root_row in opened.roots(row):
            execution = kernel.listener.execution(root, root_row)
            mine = {} if made else dict(lossy)
            source, record = _record(kernel, root, root_row, execution)
            past = execution.past
            if past is None:
                origin = self._origin(kernel, root, root_row, source, mine)
            else:  # it runs again, and came from where it came from the first time
                origin = past.origin
                mine |= past.lossy
            letter = DeadLetter(
                id=self._new_id(),
                at=self._clock(),
                workflow=self._name,
                workflow_version="" if self._workflow is None else self._workflow.version,
                workflow_hash=self.workflow_hash,
                node=failure.node,
                execution_id=execution.id,
                error=error,
                attempts=failure.attempts,
                record=self._record_of(root, record, mine),
                undecoded=undecoded,
                origin=origin,
                value=msgspec.UNSET if made else told,
                together=made[0].id if made else None,
                lineage=() if past is None else past.lineage,
                lossy=mine,
            )
            made.append(letter)
        return made

    def _record_of(self, root: Opened, record: object, lossy: dict[str, str]) -> object:
        if root.records is None:
            lossy["record"] = "the record was settled and forgotten before its row failed"
        return self._kept("record", record, lossy)

    def _origin(
        self, kernel: Kernel, root: Opened, row: int, source: str | None, lossy: dict[str, str]
    ) -> Origin:
        time: Any = None if root.times is None else root.times[row]
        headers = {} if root.headers is None else dict(root.headers[row])
        partition: str | None = None
        if kernel.task is not None and source is not None:
            partition = kernel.task.removeprefix(f"{source}/")
        return Origin(
            source=source,
            partition=partition,
            position=None if root.positions is None else self._kept("position", root.positions[row], lossy),
            index=None if kernel.task is None else root.first_index + row,
            key=None if root.keys is None else self._kept("key", root.keys[row], lossy),
            headers=self._kept("headers", headers, lossy),
            event_time=time.isoformat() if isinstance(time, datetime) else None,
        )

    def _kept(self, name: str, value: object, lossy: dict[str, str]) -> object:
        """The plain form without secrets; what is not as it was is noted in `lossy`."""
        clean = self._redact(value)
        plain, reason = kept(clean)
        if reason is not None:
            plain, reason = self._redact(plain), self._redact(reason)
        elif clean is not value:
            reason = "secrets in it are masked, and what is nested deeper than 64 levels"
        if reason is not None:
            lossy[name] = reason
        return plain

    @property
    def workflow_hash(self) -> str:
        """SHA-256 of the workflow's document, made with the first letter; empty when it has none."""
        if self._hash is None:
            self._hash = "" if self._workflow is None else hash_of(self._workflow)
        return self._hash


def _record(kernel: Kernel, root: Opened, row: int, execution: Execution) -> tuple[str | None, object]:
    """The source a record came from, and the record; else None, and the inputs by node and port."""
    if execution.given is not None:
        return _given(kernel, execution.given)
    record = None if root.records is None else root.records[row]
    if root.scope != ITEMS:
        return root.scope, record
    inputs: dict[str, dict[str, Any]] = {}
    for connection in kernel.plan.graph.connections:
        if connection.from_node == ITEMS:
            with contextlib.suppress(FieldMissingError):  # then that is what the row failed with
                port = connection.to_port or SOURCE_PORT
                inputs.setdefault(connection.to_node, {})[port] = _at(record, connection.path)
    return None, inputs


def _given(kernel: Kernel, given: Mapping[str, Any]) -> tuple[str | None, object]:
    """The inputs of a request: the record of the one source it fed, or all by node and port."""
    named = [(*name.rpartition(".")[::2], value) for name, value in given.items()]
    nodes = kernel.plan.graph.nodes
    if len(named) == 1 and named[0][1] == SOURCE_PORT and nodes[named[0][0]].role == "source":
        return named[0][0], named[0][2]
    inputs: dict[str, dict[str, Any]] = {}
    for node, port, value in named:
        inputs.setdefault(node, {})[port] = value
    return None, inputs


def _at(value: object, path: Sequence[str]) -> object:
    for part in path:
        value = field_of(value, part)
    return value


def hash_of(workflow: Workflow) -> str:
    """SHA-256 of the workflow's document, functions given in code by their types' names; empty: none."""
    try:
        document = to_document(workflow, local_types=True)
    except ValidationFailedError:
        return ""
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
