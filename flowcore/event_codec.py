"""Events as one line of JSON or as msgpack, and back, old versions included.

Owns: `EventCodec`, upcasters, and the errors of reading what is not an event.
Does not own: files and topics (the recorder, connectors).

Always holds: encoding never fails and never changes anything in silence: what a node or an error put into an
event is written in the plain form of values and read back as the same value, and what is no value (see
`plain_payload`) or no Unicode text is written visibly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec

from flowcore.errors import RunError
from flowcore.events import (
    KINDS,
    MAX_DEPTH,
    ExecutionEvent,
    Gap,
    NodeCompleted,
    NodeEvent,
    NodeFailed,
    NodeRetrying,
    RecordDeadLettered,
    WorkflowFailed,
    WorkflowRetrying,
)
from flowcore.plain import from_plain, to_plain
from flowcore.values import ValueFormError, encodable

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the fields of version n, gives those of version n + 1; `kind` and `version` are looked after."""


class EventDecodeError(RunError, ValueError):
    """What was read is not an event FlowRx knows; `value` shows its beginning."""


class UnknownEventKindError(EventDecodeError):
    """An event of a kind this version of FlowRx does not have."""


class EventVersionError(EventDecodeError):
    """An event newer than this version of FlowRx, or older than any upcaster reaches."""


class _Head(msgspec.Struct):
    kind: str
    version: int = 1


UPCASTERS: Final[Mapping[tuple[str, int], Upcaster]] = {
    ("NodeFailed", 1): dict,  # `then` was added, and is not known
}
"""Of FlowRx's own events."""


class EventCodec:
    """Encodes and decodes the given kinds of events.

    Args:
        kinds: every kind that may be read; by default all of FlowRx's.
        upcasters: by kind and the version they start from; by default those of FlowRx's kinds.
    """

    def __init__(
        self,
        kinds: Sequence[type[ExecutionEvent]] = KINDS,
        upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
    ) -> None:
        self._versions = {kind.__name__: _current_version(kind) for kind in (*kinds, Gap)}
        self._upcasters = dict(upcasters)
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
                event = cast("ExecutionEvent | Gap", decode_current(data))
            else:
                fields = cast("dict[str, Any]", decode(data))
                event = self._upcast(head, current, fields, data)
            return _map_payload(event, from_plain) if _has_forms(data) else event
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueFormError) as broken:
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


def plain_payload(value: object) -> object:
    """`value` in the plain form of values (flowcore.plain), also where it has none.

    What is no value (a foreign object, a live Stream, something that holds itself, nesting beyond
    `MAX_DEPTH`) becomes a mapping `{"$repr": text}`, a key that is not text becomes its text, a tuple or set
    a list, a struct a mapping.
    """
    return _tolerant(value, ())


def _tolerant(value: object, inside: tuple[object, ...]) -> object:
    try:
        return to_plain(value)
    except (ValueFormError, RecursionError):
        pass
    if len(inside) >= MAX_DEPTH or any(value is outer for outer in inside):
        return _foreign(f"<{type(value).__name__} nested deeper than {MAX_DEPTH} or in itself>")
    inner = (*inside, value)
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        value = {name: field for name, field in fields if field is not msgspec.UNSET}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {_escaped(key): _tolerant(item, inner) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_tolerant(item, inner) for item in cast("Sequence[object]", value)]
    return _foreign(_safe_repr(value))


def _foreign(text: str) -> object:
    return to_plain({"$repr": _visible(text)})


def _escaped(key: object) -> str:
    text = _visible(key if isinstance(key, str) else _safe_repr(key))
    return f"${text}" if text.startswith("$") else text


def _map_payload(event: ExecutionEvent | Gap, change: Callable[[object], object]) -> ExecutionEvent | Gap:
    """`event` with `change` applied to what nodes and errors put into it."""
    if isinstance(event, NodeEvent):
        return msgspec.structs.replace(event, data=change(event.data))
    if isinstance(event, NodeCompleted) and event.outputs is not msgspec.UNSET:
        return msgspec.structs.replace(event, outputs=change(event.outputs))
    if (
        isinstance(event, NodeFailed | NodeRetrying | WorkflowRetrying | RecordDeadLettered | WorkflowFailed)
        and event.error.facts
    ):
        error = msgspec.structs.replace(event.error, facts=cast("Any", change(dict(event.error.facts))))
        return msgspec.structs.replace(event, error=error)
    return event


def _encode(event: ExecutionEvent | Gap, encode: Callable[[Any], bytes]) -> bytes:
    shaped = _map_payload(event, plain_payload)
    try:
        return encode(shaped)
    except UnicodeEncodeError:  # a text with an unpaired surrogate: written visibly
        fields = cast("dict[str, object]", _readable(shaped))
        return encode({"kind": type(event).__name__, **fields})


def _readable(value: object) -> object:
    if isinstance(value, str):
        return _visible(value)
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {name: _readable(field) for name, field in fields if field is not msgspec.UNSET}
    if isinstance(value, tuple):
        return [_readable(item) for item in cast("tuple[object, ...]", value)]
    return value  # payloads are plain by now


def _visible(text: str) -> str:
    return str(text) if encodable(text) else text.encode(errors="backslashreplace").decode()


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as broken:  # noqa: BLE001 - another's __repr__; an event is written all the same
        return f"<{type(value).__name__} whose __repr__ raised {type(broken).__name__}>"


def _has_forms(data: bytes | str) -> bool:
    """Whether plain forms (`$bytes`, `$float`, ...) may be in it; most events have none."""
    return "$" in data if isinstance(data, str) else b"$" in data


def _current_version(kind: type[ExecutionEvent | Gap]) -> int:
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return cast("int", defaults.get("version", 1))


def _shown(data: object, limit: int = 120) -> str:
    shown = repr(data)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


CODEC = EventCodec()
"""For FlowRx's own events."""
