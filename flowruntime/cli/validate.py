"""flow validate: every problem of a workflow at once, without running anything."""

from __future__ import annotations

from flowcore.errors import ValidationFailedError
from flowruntime.cli.failures import USAGE, print_problems
from flowruntime.cli.parsing import Texts
from flowruntime.cli.planning import planned
from flowruntime.cli.target import load_target


def validate(file: str, /, *, param: Texts = None, nodes: Texts = None) -> int:
    """Check a workflow; prints `file:line: path: problem; remedy` for each problem.

    Exit code 0 when there is none, else 2. Warnings are shown and do not count.

    Args:
        file: workflow file, or module:workflow.
        param: value of a param, name=value; repeat for more.
        nodes: module of node types; repeat for more.
    """
    try:
        target = load_target(file, nodes=nodes or (), params=param or ())
        plan = planned(target.workflow, target.registry())
    except ValidationFailedError as refused:
        return _refused(file, refused)
    warnings = plan.graph.warnings
    print_problems(warnings, file=file, to_stdout=True)
    noted = f", {_counted(len(warnings), 'warning')}" if warnings else ""
    counted = (
        f"{_counted(len(plan.graph.nodes), 'node')}, {_counted(len(plan.graph.connections), 'connection')}"
    )
    print(f"{file}: {plan.graph.name} is valid: {counted}, {_counted(len(plan.stages), 'stage')}{noted}")
    return 0


def _refused(file: str, refused: ValidationFailedError) -> int:
    errors = print_problems(refused.problems, file=file, to_stdout=True)
    print(f"{file}: {_counted(errors, 'problem')}")
    return USAGE


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
