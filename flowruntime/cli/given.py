"""--input: from its text to the inputs of a request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flowcore.errors import FlowError, ValidationFailedError
from flowcore.plain import from_plain
from flowruntime.cli.failures import UsageError
from flowruntime.definition.json import parse_json
from flowruntime.execute.inputs import SOURCE_PORT, request_inputs

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph


def read_input(text: str) -> Any:
    """The value `--input` gives: JSON, `@FILE`, or `@-` for standard input.

    Raises:
        UsageError: it cannot be read or is no JSON.
    """
    where = "--input"
    if text.startswith("@"):
        where = f"--input {text}"
        text = _read(text[1:])
    try:
        data, _ = parse_json(text)
        return from_plain(data)
    except ValidationFailedError as fault:
        problem = fault.problems[0]
        line = "" if problem.line is None else f" line {problem.line}:"
        raise UsageError(
            f"{where} is no JSON:{line} {problem.message}; quote it for the shell: --input '{{...}}'"
        ) from fault
    except FlowError as fault:
        raise UsageError(f"{where}: {fault}") from fault


def as_inputs(graph: ResolvedGraph, given: Any) -> dict[str, Any]:
    """What `FlowRuntime.execute` takes: a value that is no object is the record of the one source.

    Raises:
        ValidationFailedError: it has no reading.
    """
    if given is None or isinstance(given, dict):
        return cast("dict[str, Any]", given or {})
    filled = request_inputs(graph, given)
    return {name.removesuffix(f".{SOURCE_PORT}"): {SOURCE_PORT: value} for name, value in filled.items()}


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as fault:
        raise UsageError(f"--input @{path}: there is no such file") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(f"--input @{path} cannot be read: {fault}") from fault
