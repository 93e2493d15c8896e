"""flow plan: what the compiler makes of a workflow, and what that promises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from flowcore.errors import Problem, ValidationFailedError
from flowcore.profiles import ProfileName
from flowruntime.cli.failures import UsageError, print_problems
from flowruntime.cli.parsing import Flag, Texts
from flowruntime.cli.planning import planned
from flowruntime.cli.streams import print_json
from flowruntime.cli.target import load_target
from flowruntime.compile.description import describe
from flowruntime.compile.diff import diff as compared
from flowruntime.compile.diff import diff_text
from flowruntime.compile.explain import code as generated
from flowruntime.compile.explain import explain
from flowruntime.compile.mermaid import mermaid
from flowruntime.compile.plan import Plan

S = TypeVar("S", bound=msgspec.Struct)


def plan(
    file: str,
    /,
    *,
    code: Flag = False,
    format: Literal["text", "mermaid", "json"] = "text",
    diff: str | None = None,
    param: Texts = None,
    nodes: Texts = None,
    profile: ProfileName | None = None,
) -> int:
    """Show stages and why each boundary is there, limits, the sum of all bounds, guarantees.

    Args:
        file: workflow file, or module:workflow.
        code: show the generated functions instead.
        format: text for people, json for programs, mermaid for a picture.
        diff: an older workflow file; shows what the edit keeps, resets and orphans.
        param: value of a param, name=value; repeat for more.
        nodes: module of node types; repeat for more.
        profile: what the workflow is to be good at, instead of what it says.
    """
    if sum((code, format == "mermaid", diff is not None)) > 1:
        raise UsageError("--code, --format mermaid and --diff show different things; give one of them")
    if code and format == "json":
        raise UsageError("--code has no JSON form; leave --format out")
    files = [file] if diff is None else [file, diff]
    (new, said_by), *old = _plans(files, param or (), nodes or (), profile)
    print_problems(new.graph.warnings, file=file)
    if old:
        _show(compared(old[0][0], new), diff_text, format)
    elif code:
        sys.stdout.write(generated(new))
    elif format == "mermaid":
        sys.stdout.write(mermaid(new))
    else:
        _show(describe(new, said_by), explain, format)
    return 0


def _plans(
    files: Sequence[str], params: Sequence[str], nodes: Sequence[str], profile: ProfileName | None
) -> list[tuple[Plan, Mapping[str, str]]]:
    """The plan of each file, and who says the settings that its file does not.

    Raises:
        ValidationFailedError: with the problems of all of them.
    """
    plans: list[tuple[Plan, Mapping[str, str]]] = []
    problems: list[Problem] = []
    for file in dict.fromkeys(files):
        try:
            target = load_target(file, params=params, nodes=nodes, profile=profile)
            plan = planned(target.workflow, target.registry(), target.project.import_middleware())
            plans.append((plan, target.said_by))
        except ValidationFailedError as refused:
            problems += refused.problems
    if problems:
        raise ValidationFailedError(problems)
    return plans if len(plans) == len(files) else plans * len(files)


def _show(data: S, text_of: Callable[[S], str], format: str) -> None:
    if format == "json":
        print_json(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
    else:
        sys.stdout.write(text_of(data))
