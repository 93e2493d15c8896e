"""Rows: what a store keeps as the columns of its tables, and back.

Owns: which column holds what, and the sums of rows.
Does not own: tables (schema), statements (the `sql_` modules), text forms (codec).

Always holds: the struct made of a row is the one the row was made of, or an UnreadableError is raised.
Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from flowcore.waits import Wait
from flowruntime.state.store.codec import (
    MAX_ID_BYTES,
    UnreadableError,
    check_entry,
    check_new,
    check_text,
    check_wait,
    checked_time,
    facts_of,
    read_state,
    read_value,
    read_workflow,
    row_sum,
    write_state,
    write_value,
)
from flowruntime.state.store.entries import (
    ExecutionHead,
    JournalEntry,
    StoredExecution,
    StoredWorkflow,
    WorkflowHead,
)

Row: TypeAlias = Sequence[Any]

WORKFLOW: Final = ("id", "version", "name", "hash", "created_at", "row_sum")
DOCUMENT: Final = ("document",)
EXECUTION: Final = (
    "id", "workflow_id", "workflow_version", "workflow_hash", "created_at",
    "state", "state_text", "revision", "started_at", "ended_at", "owner", "row_sum",
)  # fmt: skip
INPUTS: Final = ("inputs", "inputs_sum")
RESULT: Final = ("result", "result_sum")
WAIT: Final = (
    "id", "execution_id", "node", "path", "kind", "created_at", "expires_at", "details",
    "state", "closed_at", "outcome", "row_sum",
)  # fmt: skip
JOURNAL: Final = ("execution_id", "node", "path", "call", "failed", "body", "row_sum")


# --- workflows ------------------------------------------------------------------------------------------


def workflow_row(head: WorkflowHead) -> Row:
    """WORKFLOW."""
    columns = (head.id, head.version, head.name, head.hash, head.created_at)
    return (*columns, row_sum(*columns))


def workflow_head(row: Row) -> WorkflowHead:
    """Of WORKFLOW."""
    id, version, name, hash, created_at, _ = _checked(row)
    return WorkflowHead(id=id, version=version, name=name, hash=hash, created_at=created_at)


def stored_workflow(row: Row) -> StoredWorkflow:
    """Of WORKFLOW and DOCUMENT."""
    *head_row, document = row
    head = workflow_head(head_row)
    return StoredWorkflow(
        id=head.id,
        version=head.version,
        name=head.name,
        hash=head.hash,
        created_at=head.created_at,
        workflow=read_workflow(_text(document), head.hash),
    )


# --- executions -----------------------------------------------------------------------------------------


def execution_row(execution: ExecutionHead) -> Row:
    """EXECUTION."""
    check_text("by", execution.owner, most_bytes=MAX_ID_BYTES, empty=True)
    columns = (
        execution.id,
        execution.workflow_id,
        execution.workflow_version,
        execution.workflow_hash,
        checked_time("created_at", execution.created_at),
        execution.state.name,
        write_state(execution.state),
        execution.revision,
        None if execution.started_at is None else checked_time("started_at", execution.started_at),
        None if execution.ended_at is None else checked_time("ended_at", execution.ended_at),
        execution.owner,
    )
    return (*columns, row_sum(*columns))


def value_row(id: str, value: Any, *, what: str) -> Row:
    """INPUTS or RESULT of an execution."""
    text = write_value(value, what=f"{what} of execution {id!r}")
    return text, row_sum(id, text)


def new_execution_row(execution: StoredExecution) -> Row:
    """EXECUTION, INPUTS and RESULT of one before its first step."""
    check_new(execution)
    return (
        *execution_row(execution),
        *value_row(execution.id, execution.inputs, what="inputs"),
        *value_row(execution.id, None, what="result"),
    )


def execution_head(row: Row) -> ExecutionHead:
    """Of EXECUTION."""
    return ExecutionHead(**_execution_fields(row))


def stored_execution(row: Row) -> StoredExecution:
    """Of EXECUTION, INPUTS and RESULT."""
    fields = _execution_fields(row[: len(EXECUTION)])
    values: list[Any] = []
    for place in (len(EXECUTION), len(EXECUTION) + len(INPUTS)):
        text, summed = row[place : place + 2]
        if row_sum(fields["id"], text) != summed:
            raise _unlike(row)
        values.append(read_value(_text(text)))
    inputs, result = values
    return StoredExecution(**fields, inputs=inputs, result=result)


def _execution_fields(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = dict(zip(EXECUTION, _checked(row), strict=True))
    del fields["row_sum"]
    fields["state"] = read_state(_text(fields.pop("state_text")))
    return fields


# --- waits ----------------------------------------------------------------------------------------------


def wait_row(wait: Wait) -> Row:
    """WAIT."""
    what = f"wait {wait.id!r}"
    details = {
        "title": wait.title,
        "schema": None if wait.schema is None else dict(wait.schema),
        "on_timeout": wait.on_timeout,
        "default": wait.default,
    }
    columns = (
        wait.id,
        wait.execution_id,
        wait.node,
        wait.path,
        wait.kind,
        checked_time("created_at", wait.created_at),
        None if wait.expires_at is None else checked_time("expires_at", wait.expires_at),
        write_value(details, what=what),
        wait.state,
        None if wait.closed_at is None else checked_time("at", wait.closed_at),
        write_value({"answer": wait.answer, "by": wait.answered_by}, what=f"answer of {what}"),
    )
    return (*columns, row_sum(*columns))


def new_wait_row(wait: Wait) -> Row:
    """WAIT of one that is open."""
    check_wait(wait)
    return wait_row(wait)


def stored_wait(row: Row) -> Wait:
    """Of WAIT."""
    fields: dict[str, Any] = dict(zip(WAIT, _checked(row), strict=True))
    del fields["row_sum"]
    details = read_value(_text(fields.pop("details")))
    outcome = read_value(_text(fields.pop("outcome")))
    return Wait(**fields, **details, answer=outcome["answer"], answered_by=outcome["by"])


# --- the journal ----------------------------------------------------------------------------------------


def journal_row(entry: JournalEntry) -> Row:
    """JOURNAL."""
    check_entry(entry)
    failed = entry.failure is not None
    body = facts_of(entry.failure) if entry.failure is not None else entry.value
    text = write_value(body, what=f"journal entry {entry.key!r}")
    columns = (entry.execution_id, entry.node, entry.path, entry.call, int(failed), text)
    return (*columns, row_sum(*columns))


def journal_entry(row: Row) -> JournalEntry:
    """Of JOURNAL."""
    execution_id, node, path, call, failed, text, _ = _checked(row)
    body = read_value(_text(text))
    value, failure = (None, body) if failed else (body, None)
    return JournalEntry(
        execution_id=execution_id, node=node, path=path, call=call, value=value, failure=failure
    )


# --- all ------------------------------------------------------------------------------------------------


def _checked(row: Row) -> Row:
    """The row, if its last column is the sum of the others."""
    if row_sum(*row[:-1]) != row[-1]:
        raise _unlike(row)
    return row


def _unlike(row: Row) -> UnreadableError:
    return UnreadableError(f"row {str(row[0])[:60]!r} is not as FlowRx wrote it: its sum differs")


def _text(column: object) -> str:
    if not isinstance(column, str):
        raise UnreadableError(f"a column holds {type(column).__name__} where FlowRx writes text")
    return column
