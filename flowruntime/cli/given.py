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
    from_file = text.startswith("@")
    where = f"--input {text}" if from_file else "--input"
    if from_file:
        text = _read(text[1:], where)
    if not text.strip():
        raise UsageError(f"{where} is empty; give a JSON value")
    try:
        data, _ = parse_json(text)
        return from_plain(data)
    except ValidationFailedError as fault:
        problem = fault.problems[0]
        line = "" if problem.line is None else f" line {problem.line}:"
        remedy = "" if from_file else "; quote it for the shell: --input '{...}'"
        raise UsageError(f"{where} is no JSON:{line} {problem.message}{remedy}") from fault
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


def _read(path: str, where: str) -> str:
    if not path:
        raise UsageError(f"{where} names no file; write @FILE, or @- for standard input")
    try:
        raw = _standard_input() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError as fault:
        raise UsageError(f"{where}: there is no such file") from fault
    except (OSError, ValueError) as fault:
        raise UsageError(f"{where} cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        byte = f"byte {raw[fault.start]:#04x} at position {fault.start}"
        raise UsageError(f"{where} is not UTF-8: {byte}; save it as UTF-8") from fault


def _standard_input() -> bytes:
    if sys.stdin is None:  # what Python leaves of a closed one
        raise ValueError("standard input is closed")
    return sys.stdin.buffer.read()
