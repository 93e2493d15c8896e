"""Checking a workflow from a program: everything `flow validate` tells, as data.

Owns: from a file, a text or a workflow to its problems. Does not own: finding them (definition, compile).

Always holds: nothing is run; a workflow that cannot be read is a problem like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from flowcore.binding import bind_draft
from flowcore.errors import Problem, ValidationFailedError
from flowcore.workflow import Workflow
from flowruntime.compile.topology import Mode
from flowruntime.compile.validate import validate
from flowruntime.definition.load import load_draft
from flowruntime.registry import Registry


def check_workflow(
    workflow: Workflow | str | os.PathLike[str],
    *,
    nodes: Iterable[object] = (),
    params: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    mode: Mode = "stream",
) -> tuple[Problem, ...]:
    """Everything wrong with a workflow, each with path, line, value and remedy; empty when there is nothing.

    Args:
        workflow: a workflow, or what `load_workflow` takes: a path, or the text of a file.
        nodes: node types beside the installed ones: functions, classes, modules.
        params: values for its params.
        env: what `${NAME}` refers to; None: the process's environment.
        mode: `request`: inputs may fill ports that are not connected; a workflow without a source may be run
            in no other way, whatever is said here.

    Returns:
        Problems of its form, of its meaning, and of which rows meet, in the order of the file; those of
        severity `warning` let it run all the same.

    Cost: as loading and validating: well under a second for 1,000 nodes.
    """
    try:
        draft = workflow if isinstance(workflow, Workflow) else load_draft(workflow, env=env)
        return validate(bind_draft(draft, params), Registry(nodes), mode=mode).warnings
    except ValidationFailedError as refused:
        return refused.problems
