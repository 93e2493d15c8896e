"""Identifiers: the newtypes every layer shares, and the one rule a readable id obeys.

Owns: what a node id and a port name may look like, and the layout of a UUIDv7.
Does not own: when an id is made; clock and randomness are passed in by the runtime.

Pure: no I/O, no clock, no randomness. Every function gives the same answer for the same arguments.
"""

from __future__ import annotations

import re
from typing import Final, NewType

from flowcore.errors import BuildError

WorkflowId = NewType("WorkflowId", str)
ExecutionId = NewType("ExecutionId", str)
NodeId = NewType("NodeId", str)
PortName = NewType("PortName", str)

NODE_ID_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_-]*"
PORT_NAME_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_]*"
MAX_ID_LENGTH: Final = 128

_NODE_ID = re.compile(NODE_ID_PATTERN)
_PORT_NAME = re.compile(PORT_NAME_PATTERN)
_NOT_IN_NODE_ID = re.compile(r"[^A-Za-z0-9_-]+")
_RANDOM_BYTES = 10
_MAX_UNIX_MS = (1 << 48) - 1


class InvalidIdError(BuildError, ValueError):
    """An id or port name breaks the pattern; `value` is what was given, `suggestion` one that would do."""


def node_id_fault(text: object) -> str | None:
    """Why `text` cannot be a node id, or None when it can."""
    return _fault(text, _NODE_ID, "a letter or '_', then letters, digits, '_' or '-'")


def port_name_fault(text: object) -> str | None:
    """Why `text` cannot be a port name, or None when it can."""
    return _fault(text, _PORT_NAME, "a letter or '_', then letters, digits or '_'")


def check_node_id(text: str) -> NodeId:
    """`text` as a NodeId.

    Raises:
        InvalidIdError: the text does not match `NODE_ID_PATTERN` or is longer than `MAX_ID_LENGTH`.
    """
    fault = node_id_fault(text)
    if fault is not None:
        raise _invalid("node id", text, fault)
    return NodeId(text)


def check_port_name(text: str) -> PortName:
    """`text` as a PortName.

    Raises:
        InvalidIdError: the text does not match `PORT_NAME_PATTERN` or is longer than `MAX_ID_LENGTH`.
    """
    fault = port_name_fault(text)
    if fault is not None:
        raise _invalid("port name", text, fault)
    return PortName(text)


def suggest_node_id(text: str) -> NodeId:
    """A valid node id that resembles `text`: `3 fast calls` becomes `_3_fast_calls`."""
    cleaned = _NOT_IN_NODE_ID.sub("_", text)[:MAX_ID_LENGTH].strip("_-") or "node"
    return NodeId(cleaned if _NODE_ID.fullmatch(cleaned) else f"_{cleaned}"[:MAX_ID_LENGTH])


def new_uuid7(unix_ms: int, random_bytes: bytes) -> str:
    """A UUIDv7 in its usual text form, made from the caller's clock and randomness.

    Args:
        unix_ms: milliseconds since 1970-01-01 UTC, 0 to 2**48 - 1; ids sort by it.
        random_bytes: exactly 10 random bytes, of which 74 bits are used.

    Raises:
        ValueError: the time does not fit in 48 bits, or there are not 10 bytes.

    Source: RFC 9562, section 5.7.
    """
    if not 0 <= unix_ms <= _MAX_UNIX_MS:
        message = f"unix_ms must be within 0 and {_MAX_UNIX_MS}, got {unix_ms!r}"
        raise ValueError(message)
    if len(random_bytes) != _RANDOM_BYTES:
        message = f"random_bytes must hold {_RANDOM_BYTES} bytes, got {len(random_bytes)}"
        raise ValueError(message)
    noise = int.from_bytes(random_bytes, "big")
    number = unix_ms << 80 | 0x7 << 76 | (noise >> 64 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _fault(text: object, pattern: re.Pattern[str], rule: str) -> str | None:
    if not isinstance(text, str):
        return f"must be text, not {type(text).__name__}"
    if not text:
        return "must not be empty"
    if len(text) > MAX_ID_LENGTH:
        return f"must have at most {MAX_ID_LENGTH} characters, has {len(text)}"
    return None if pattern.fullmatch(text) else f"must be {rule}"


def _invalid(what: str, text: object, fault: str) -> InvalidIdError:
    suggestion = suggest_node_id(text) if isinstance(text, str) else None
    remedy = f"; {str(suggestion)!r} would do" if suggestion and suggestion != text else ""
    shown = repr(text) if len(repr(text)) <= MAX_ID_LENGTH else f"{repr(text)[:MAX_ID_LENGTH]}..."
    return InvalidIdError(f"{what} {shown} {fault}{remedy}", value=text, suggestion=suggestion)
