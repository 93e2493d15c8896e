"""The tables of a store, the same in SQLite and PostgreSQL, and the steps that lead from version to version.

Owns: their definition. Does not own: carrying it out (sqlite, postgres), what is in the columns (rows).

Always holds: a step that was released is never changed: a change of the schema is a new step at the end.
Texts are compared byte by byte everywhere, so that pages are the same.
"""

from __future__ import annotations

from typing import Final

TABLES: Final = ("flow_workflows", "flow_executions", "flow_waits", "flow_journal")

_VERSION_1: Final = (
    """
    CREATE TABLE flow_workflows (
        id {text} NOT NULL, version {int} NOT NULL, name {text} NOT NULL, hash {text} NOT NULL,
        created_at {float} NOT NULL, row_sum {int} NOT NULL, document {text} NOT NULL,
        PRIMARY KEY (id, version)
    )
    """,
    "CREATE INDEX flow_workflows_by_name ON flow_workflows (name)",
    """
    CREATE TABLE flow_executions (
        id {text} NOT NULL PRIMARY KEY,
        workflow_id {text} NOT NULL, workflow_version {int} NOT NULL, workflow_hash {text} NOT NULL,
        created_at {float} NOT NULL, state {text} NOT NULL, state_text {text} NOT NULL,
        revision {int} NOT NULL, started_at {float}, ended_at {float}, owner {text} NOT NULL,
        row_sum {int} NOT NULL,
        inputs {text} NOT NULL, inputs_sum {int} NOT NULL,
        result {text} NOT NULL, result_sum {int} NOT NULL,
        FOREIGN KEY (workflow_id, workflow_version) REFERENCES flow_workflows (id, version)
    )
    """,
    "CREATE INDEX flow_executions_by_time ON flow_executions (created_at, id)",
    """
    CREATE INDEX flow_executions_by_workflow ON flow_executions
        (workflow_id, workflow_version, created_at, id)
    """,
    "CREATE INDEX flow_executions_by_state ON flow_executions (state, created_at, id)",
    "CREATE INDEX flow_executions_by_end ON flow_executions (ended_at)",
    """
    CREATE TABLE flow_waits (
        id {text} NOT NULL PRIMARY KEY,
        execution_id {text} NOT NULL REFERENCES flow_executions (id) ON DELETE CASCADE,
        node {text} NOT NULL, path {text} NOT NULL, kind {text} NOT NULL,
        created_at {float} NOT NULL, expires_at {float}, details {text} NOT NULL,
        state {text} NOT NULL, closed_at {float}, outcome {text} NOT NULL, row_sum {int} NOT NULL
    )
    """,
    "CREATE INDEX flow_waits_by_time ON flow_waits (created_at, id)",
    "CREATE INDEX flow_waits_by_execution ON flow_waits (execution_id, created_at, id)",
    "CREATE INDEX flow_waits_due ON flow_waits (expires_at, id) WHERE state = 'open'",
    """
    CREATE TABLE flow_journal (
        execution_id {text} NOT NULL, node {text} NOT NULL, path {text} NOT NULL, call {int} NOT NULL,
        failed {int} NOT NULL, body {text} NOT NULL, row_sum {int} NOT NULL,
        PRIMARY KEY (execution_id, node, path, call)
    )
    """,
)

_STEPS: Final = (_VERSION_1,)
VERSION: Final = len(_STEPS)
"""Of the schema this FlowRx writes."""


def migrations(*, text: str, whole: str, real: str) -> tuple[tuple[str, ...], ...]:
    """Statements by version: the n-th lead from version n to n + 1.

    Args:
        text: type of a column of text, compared byte by byte.
        whole: type of a 64-bit whole number.
        real: type of a 64-bit float.
    """
    return tuple(
        tuple(statement.format(text=text, int=whole, float=real) for statement in step) for step in _STEPS
    )
