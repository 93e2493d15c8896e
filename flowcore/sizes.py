"""Sizes: how many bytes a value is, for every bound in bytes.

Owns: `size_up_to`, the one measure behind `max_output_bytes` and the bytes in flight.
Does not own: the bounds (policies, settings), or what becomes of a value beyond one (the runtime).

Always holds: total: every Python object has a size and none raises; it ends on values that contain
themselves and on any depth; it stops as soon as the bound is passed.

Counted is what the value says, about as a compact binary form would write it, not what CPython spends on it:

    text            its bytes as UTF-8
    bytes, Json     their bytes; a buffer or an array (anything with a buffer, or `nbytes`) its bytes, too
    list, tuple, set, deque     8 per entry, plus what the entry is
    dict            8 per key and 8 per value, plus what they are
    struct, dataclass, any other object     8 per field, plus what the field is; names are not counted
    None, bool, float, int of up to 64 bits     nothing beside their entry; a larger int its bytes
    Stream, function, class, module     nothing: what they lead to is not in the value

A container or object that is reached twice counts once, a text, bytes or Json each time. CPython spends more,
some 50 bytes on a text and 60 on a list: a value of many small parts takes several times its size in memory.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from flowcore.values import Json, Stream

ENTRY: Final = 8
"""Bytes an entry of a list counts beside what it holds: a number, or the head of something larger."""

_WORD_BITS: Final = 64
_CHUNK: Final = 1 << 16
"""Characters encoded at once to learn the length of a text that is not ASCII."""

_NOTHING: Final = frozenset({type(None), bool, float})
_OPAQUE: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, Stream)
_MANY: Final = 16
"""Entries of a container from which on it pays to look at their types first."""
_DICT: Final[Any] = dict  # of any types
_SEQUENCES: Final[tuple[Any, ...]] = (list, tuple, set, frozenset, deque)


def size_up_to(value: object, most: int) -> int:
    """The size of `value` in bytes when it is at most `most`; else some number above `most`.

    Args:
        value: anything.
        most: where counting may stop.

    Returns:
        Exact up to `most`. Beyond it what was counted so far: the value is at least that large.

    Cost: constant for ASCII text, bytes and Json; other text is encoded in chunks; a list of numbers or of
    ASCII texts some 20 to 40 ns per entry; else some 0.1 us per entry and 0.3 us per container. Never more
    than `most` / 8 entries.
    """
    kind: type[object] = type(value)
    if kind is bytes:
        return len(value)  # pyright: ignore[reportArgumentType] - type() does not narrow
    if kind is str:
        return _size_of_text(value, most)  # pyright: ignore[reportArgumentType] - as above
    if kind is int:
        return _size_of_int(value)  # pyright: ignore[reportArgumentType] - as above
    return 0 if kind in _NOTHING else _walk(value, most)


def _walk(root: object, most: int) -> int:  # noqa: C901 - one loop over every part of every output
    """Count part by part, in no particular order; no recursion, so that any depth is fine."""
    size = 0
    pending: list[Any] = [root]
    seen: dict[int, object] = {}
    # It keeps what it has seen alive: a part that is made when asked for may get the id of one that is gone.
    while pending and size <= most:
        part = pending.pop()
        kind: type[object] = type(part)  # pyright: ignore[reportUnknownVariableType] - of any value
        if kind is str:
            size += _size_of_text(part, most - size)
        elif kind is bytes:
            size += len(part)
        elif kind is int:
            size += _size_of_int(part)
        elif kind is Json:
            size += len(part.raw)
        elif kind not in _NOTHING and id(part) not in seen:
            seen[id(part)] = part
            for entries in _entries_of(part, kind, most - size):
                if type(entries) is int:  # no entries, but the bytes they stand for
                    size += entries
                    continue
                size += ENTRY * len(entries)
                if len(entries) >= _MANY:
                    size += _count_plain(entries, pending)
                    continue
                for entry in entries:  # as `_count_plain` does, without a call for each of many small parts
                    of: type[object] = type(entry)  # pyright: ignore[reportUnknownVariableType] - as above
                    if of is str and entry.isascii():
                        size += len(entry)
                    elif of not in _NOTHING and (of is not int or entry.bit_length() > _WORD_BITS):
                        pending.append(entry)
    return size


def _count_plain(entries: Collection[Any], pending: list[Any]) -> int:
    """The size of those of many entries that hold nothing further; the others go to `pending`."""
    kinds = set(map(type, entries))
    if kinds <= _NOTHING:
        return 0
    if kinds == {int} and max(map(int.bit_length, entries)) <= _WORD_BITS:
        return 0
    if kinds == {str} and all(map(str.isascii, entries)):
        return sum(map(len, entries))
    size = 0
    for entry in entries:
        kind: type[object] = type(entry)  # pyright: ignore[reportUnknownVariableType] - of any value
        if kind is str and entry.isascii():
            size += len(entry)
        elif kind not in _NOTHING and (kind is not int or entry.bit_length() > _WORD_BITS):
            pending.append(entry)
    return size


def _entries_of(part: Any, kind: Any, room: int) -> Iterable[Any]:
    """The collections whose entries `part` consists of, or a number of bytes.

    Collections are copies, since a thread that still changes the value must not break off the counting;
    one that is larger than `room` is not copied.
    """
    if kind is list or kind is tuple:
        count = ENTRY * len(part)
        return (part[:] if count <= room else count,)
    if kind is dict:
        count = 2 * ENTRY * len(part)
        return (list(part), list(part.values())) if count <= room else (count,)
    names: tuple[str, ...] | None = getattr(kind, "__struct_fields__", None)
    if names is not None:
        return ([getattr(part, name, None) for name in names],)
    if issubclass(kind, _OPAQUE):
        return ()
    try:
        return _entries_of_other(part, kind, room)
    except Exception:  # noqa: BLE001 - an attribute of a user's class that raises holds nothing to count
        return ()


def _entries_of_other(part: Any, kind: Any, room: int) -> Iterable[Any]:
    """Of subclasses, without running what they make of being read; of buffers; of objects with fields."""
    if issubclass(kind, dict):
        count = 2 * ENTRY * _DICT.__len__(part)
        return (list(_DICT.keys(part)), list(_DICT.values(part))) if count <= room else (count,)
    for base in _SEQUENCES:
        if issubclass(kind, base):
            count = ENTRY * base.__len__(part)
            return (list(base.__iter__(part)) if count <= room else count,)
    if issubclass(kind, str):
        return (_size_of_text(str.__getitem__(part, slice(None)), room),)
    if issubclass(kind, int):
        return (_size_of_int(part),)
    if issubclass(kind, float):
        return ()
    nbytes = _size_of_buffer(part)
    return (_fields_of(part, kind),) if nbytes is None else (nbytes,)


def _size_of_text(text: str, most: int) -> int:
    """Bytes as UTF-8, a lone surrogate as three; counting stops beyond `most`."""
    length = len(text)
    if length > most or text.isascii():
        return length
    size = 0
    for start in range(0, length, _CHUNK):
        size += len(text[start : start + _CHUNK].encode("utf-8", "surrogatepass"))
        if size > most:
            break
    return size


def _size_of_int(number: int) -> int:
    bits = int.bit_length(number)
    return 0 if bits <= _WORD_BITS else (bits + 7) // 8


def _size_of_buffer(part: Any) -> int | None:
    """Bytes of an array or another buffer; None when it is none."""
    try:
        with memoryview(part) as view:
            return view.nbytes
    except (TypeError, ValueError, BufferError):
        size = getattr(part, "nbytes", None)
        return size if type(size) is int and size >= 0 else None


def _fields_of(part: Any, kind: Any) -> list[Any]:
    """The values of an object's fields, in whatever way its class keeps them."""
    found: list[Any] = list(getattr(part, "__dict__", {}).values())
    for base in kind.__mro__:
        slots: str | Iterable[str] = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = base.__dict__.get(_mangled(base, name))
            with contextlib.suppress(AttributeError):  # a slot nobody has filled
                found.append(member.__get__(part, kind))
    return found


def _mangled(base: type, name: str) -> str:
    """As the class keeps a private slot."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{base.__name__.lstrip('_')}{name}" if private else name
