"""flow plan: what the compiler makes of a workflow, and what that promises."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from flowruntime.cli.failures import UsageError, print_problems
from flowruntime.cli.planning import planned
from flowruntime.cli.target import load_target
from flowruntime.compile.description import describe
from flowruntime.compile.diff import diff, diff_text
from flowruntime.compile.explain import code as generated
from flowruntime.compile.explain import explain
from flowruntime.compile.mermaid import mermaid
from flowruntime.compile.plan import Plan

Texts = Annotated[list[str] | None, Parameter(negative="")]


def plan(
    file: str,
    /,
    *,
    code: Annotated[bool, Parameter(negative="")] = False,
    format: Literal["text", "mermaid", "json"] = "text",
    diff: str | None = None,
    param: Texts = None,
    nodes: Texts = None,
) -> int:
    """Show stages and why each boundary is there, limits, the sum of all bounds, guarantees.

    Args:
        file: workflow file, or module:workflow.
        code: show the generated functions instead.
        format: text for people, json for programs, mermaid for a picture.
        diff: an older workflow file; shows what the edit keeps, resets and orphans.
        param: value of a param, name=value; repeat for more.
        nodes: module of node types; repeat for more.
    """
    if sum((code, format == "mermaid", diff is not None)) > 1:
        raise UsageError("--code, --format mermaid and --diff show different things; give one of them")
    if code and format == "json":
        raise UsageError("--code has no JSON form; leave --format out")
    new = _plan(file, param or (), nodes or ())
    print_problems(new.graph.warnings, file=file)
    if diff is not None:
        sys.stdout.write(_compared(_plan(diff, param or (), nodes or ()), new, format))
    elif code:
        sys.stdout.write(generated(new))
    elif format == "mermaid":
        sys.stdout.write(mermaid(new))
    else:
        description = describe(new)
        sys.stdout.write(_json(description) if format == "json" else explain(description))
    return 0


def _plan(file: str, params: list[str] | tuple[()], nodes: list[str] | tuple[()]) -> Plan:
    target = load_target(file, params=params, nodes=nodes)
    return planned(target.workflow, target.registry())


def _compared(old: Plan, new: Plan, format: str) -> str:
    found = diff(old, new)
    return _json(found) if format == "json" else diff_text(found)


def _json(data: msgspec.Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n"
