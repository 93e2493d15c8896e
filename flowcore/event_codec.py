"""Events as one line of JSON or as msgpack, and back, old versions included.

Owns: `EventCodec`, upcasters, and the errors of reading what is not an event.
Does not own: files and topics (the recorder, connectors).

Always holds: encoding never fails and never changes a value in silence: what JSON cannot say (NaN,
infinities, integers beyond 64 bits, bytes, unpaired surrogates, foreign objects, nesting beyond `MAX_DEPTH`)
is written in a marked form.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from flowcore.errors import RunError
from flowcore.events import (
    KINDS,
    ExecutionEvent,
    Gap,
    NodeCompleted,
    NodeEvent,
    NodeFailed,
    NodeRetrying,
    WorkflowFailed,
)

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the fields of version n, gives those of version n + 1; `kind` and `version` are looked after."""

MAX_DEPTH = 64
"""Of payloads; what lies deeper is replaced by a marked text."""

_INT64 = range(-(2**63), 2**64)
_HAS_PAYLOAD = (NodeCompleted, NodeEvent, NodeFailed, NodeRetrying, WorkflowFailed)


class EventDecodeError(RunError, ValueError):
    """What was read is not an event FlowRx knows; `value` shows its beginning."""


class UnknownEventKindError(EventDecodeError):
    """An event of a kind this version of FlowRx does not have."""


class EventVersionError(EventDecodeError):
    """An event newer than this version of FlowRx, or older than any upcaster reaches."""


class _Head(msgspec.Struct):
    kind: str
    version: int = 1


class EventCodec:
    """Encodes and decodes the given kinds of events.

    Args:
        kinds: every kind that may be read; by default all of FlowRx's.
        upcasters: by kind and the version they start from.
    """

    def __init__(
        self,
        kinds: Sequence[type[ExecutionEvent]] = KINDS,
        upcasters: Mapping[tuple[str, int], Upcaster] | None = None,
    ) -> None:
        self._versions = {kind.__name__: _current_version(kind) for kind in (*kinds, Gap)}
        self._upcasters = dict(upcasters or {})
        union: Any = Gap
        for kind in kinds:
            union |= kind
        self._union = union
        self._json = msgspec.json.Decoder(union)
        self._msgpack = msgspec.msgpack.Decoder(union)

    def encode_json(self, event: ExecutionEvent | Gap) -> bytes:
        """One line, without the line end."""
        return _encode(event, msgspec.json.encode)

    def encode_msgpack(self, event: ExecutionEvent | Gap) -> bytes:
        """The same as msgpack."""
        return _encode(event, msgspec.msgpack.encode)

    def decode_json(self, data: bytes | str) -> ExecutionEvent | Gap:
        """The event that `encode_json` wrote, brought up to the current version.

        Raises:
            EventDecodeError: not JSON, or not the fields of its kind.
            UnknownEventKindError, EventVersionError: as named.
        """
        return self._decode(data, msgspec.json.decode, self._json.decode)

    def decode_msgpack(self, data: bytes) -> ExecutionEvent | Gap:
        """Like `decode_json`, for `encode_msgpack`."""
        return self._decode(data, msgspec.msgpack.decode, self._msgpack.decode)

    def _decode(
        self, data: bytes | str, decode: Callable[..., Any], decode_current: Callable[[Any], Any]
    ) -> ExecutionEvent | Gap:
        try:
            head = cast("_Head", decode(data, type=_Head))
            current = self._versions.get(head.kind)
            if current is None:
                raise self._unknown(head.kind, data)
            if head.version == current:
                return cast("ExecutionEvent | Gap", decode_current(data))
            fields = cast("dict[str, Any]", decode(data))
            return self._upcast(head, current, fields, data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as broken:
            raise EventDecodeError(
                f"not an event: {broken} (got {_shown(data)}); was it cut, or written by something else?",
                value=_shown(data),
            ) from broken

    def _upcast(
        self, head: _Head, current: int, fields: dict[str, Any], data: object
    ) -> ExecutionEvent | Gap:
        if head.version > current:
            raise EventVersionError(
                f"{head.kind} has version {head.version!r}, the newest known here is {current}; "
                "read it with the FlowRx that wrote it, or a newer one",
                event_kind=head.kind,
                version=head.version,
                value=_shown(data),
            )
        for version in range(head.version, current):
            upcaster = self._upcasters.get((head.kind, version))
            if upcaster is None:
                raise EventVersionError(
                    f"{head.kind} has version {head.version!r} and no upcaster leads from {version} to "
                    f"{version + 1}; read it with the FlowRx that wrote it",
                    event_kind=head.kind,
                    version=head.version,
                    value=_shown(data),
                )
            fields = {**upcaster(fields), "kind": head.kind, "version": version + 1}
        return cast("ExecutionEvent | Gap", msgspec.convert(fields, self._union))

    def _unknown(self, kind: str, data: object) -> UnknownEventKindError:
        return UnknownEventKindError(
            f"unknown kind of event {kind!r}; known are {', '.join(self._versions)}. "
            "Read it with the FlowRx that wrote it, or a newer one",
            event_kind=kind,
            value=_shown(data),
        )


def plain_payload(value: object, depth: int = 0) -> object:
    """`value` as data that JSON and msgpack both carry; what they cannot say is marked `{"$...": text}`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value)
    if isinstance(value, int | float):
        return _plain_number(value)
    if isinstance(value, bytes | bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    return _plain_container(value, depth)


def _plain_number(value: float) -> object:
    if isinstance(value, int):
        return int(value) if int(value) in _INT64 else {"$int": str(int(value))}
    return float(value) if math.isfinite(value) else {"$float": repr(float(value))}


def _plain_container(value: object, depth: int) -> object:
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        value = {name: field for name, field in fields if field is not msgspec.UNSET}
    if depth >= MAX_DEPTH:
        return {"$truncated": f"nested deeper than {MAX_DEPTH}"}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {_plain_text(str(key)): plain_payload(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_payload(item, depth + 1) for item in cast("Sequence[object]", value)]
    return {"$repr": _plain_text(_safe_repr(value))}


def _encode(event: ExecutionEvent | Gap, encode: Callable[[Any], bytes]) -> bytes:
    if not isinstance(event, _HAS_PAYLOAD):
        try:
            return encode(event)
        except (msgspec.MsgspecError, OverflowError, TypeError, ValueError):
            pass  # a text with an unpaired surrogate or the like: the slow way below
    fields = cast("dict[str, object]", plain_payload(event))
    return encode({"kind": type(event).__name__, **fields})


def _plain_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return str(text)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as broken:  # noqa: BLE001 - a user's __repr__ may raise anything; the event must still be written
        return f"<{type(value).__name__} whose __repr__ raised {type(broken).__name__}>"


def _current_version(kind: type[ExecutionEvent | Gap]) -> int:
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return cast("int", defaults.get("version", 1))


def _shown(data: object, limit: int = 120) -> str:
    shown = repr(data)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


CODEC = EventCodec()
"""For FlowRx's own events."""
