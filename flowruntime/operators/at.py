"""What a generated function may ask of the frame it is working on.

Owns: `At`: notes of failed rows, columns of the row's root record, fields, contexts; recording of single
    nodes.
Does not own: what becomes of a note (flowruntime.operators.fused).

One instance per fused stage, pointed at one frame at a time; a fused stage is never entered twice at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from flowcore.errors import EngineError, FieldMissingError
from flowcore.frame import Failure, Opened
from flowcore.values import Json

if TYPE_CHECKING:
    from flowruntime.compile.fuse import Fused
    from flowruntime.operators.kernel import Kernel

_NO_HEADERS: Mapping[str, object] = {}


class At:
    """The frame at hand, as generated code sees it."""

    __slots__ = ("_kernel", "_lines", "_nodes", "_telemetry", "context", "notes", "opened", "unset")

    def __init__(self, kernel: Kernel, fused: Fused) -> None:
        self._kernel = kernel
        self._nodes = [step.name for step in fused.steps]
        self._lines = fused.lean_lines
        self._telemetry = kernel.worker.telemetry
        self.unset = msgspec.UNSET
        self.opened: Opened = None  # pyright: ignore[reportAttributeAccessIssue] - set before every call
        self.notes: list[tuple[int, int, Failure]] = []
        self.context: Callable[[int, str], Any] = self._context

    def note(self, row: int, step: int, error: Exception, started: float = 0.0) -> None:
        """A row failed at a step: it is counted and told of at once."""
        failure = self._kernel.failed(self._nodes[step], self.opened, row, error, started=started)
        self.notes.append((row, step, failure))

    def note_line(self, row: int, error: Exception) -> None:
        """A row failed in a straight stage; the line of the generated function tells the step."""
        trace = error.__traceback__
        step = self._lines.get(trace.tb_lineno) if trace is not None else None
        if step is None:
            raise EngineError(f"the generated code of {self.opened!r} failed outside its steps") from error
        self.note(row, step, error)

    def start(self, row: int, step: int) -> float:
        """A node begins on a row."""
        return self._telemetry.node_started(self._kernel, self._nodes[step], self.opened, row)

    def done(self, row: int, step: int, value: object, started: float) -> None:
        """A node has finished a row; ABSENT when it dropped it."""
        self._kernel.completed(self._nodes[step], self.opened, row, value, started)

    def field(self, value: object, name: str) -> object:
        """One field of a value: a key of a mapping, an attribute of a struct, an index of a list.

        Raises:
            FieldMissingError: there is none of that name.
        """
        return field_of(value, name)

    def key(self, row: int) -> object:
        opened, row = self.opened.root(row)
        return None if opened.keys is None else opened.keys[row]

    def headers(self, row: int) -> Mapping[str, object]:
        opened, row = self.opened.root(row)
        return _NO_HEADERS if opened.headers is None else opened.headers[row]

    def record(self, row: int) -> object:
        opened, row = self.opened.root(row)
        return None if opened.records is None else opened.records[row]

    def _context(self, row: int, node_id: str) -> Any:
        return self._kernel.worker.context(self._kernel, node_id, self.opened, row)


def field_of(value: object, name: str) -> object:
    """One field of a value, by the rule connections and expressions share.

    Raises:
        FieldMissingError: there is none of that name; the message lists those there are.
    """
    if isinstance(value, dict):
        if name in value:
            return value[name]  # pyright: ignore[reportUnknownVariableType] - a user's value
        known = ", ".join(sorted(map(repr, value))[:10])  # pyright: ignore[reportUnknownArgumentType] - as above
        raise FieldMissingError(f"no field {name!r}; there are {known or 'none'}", field=name)
    if isinstance(value, Json):
        return field_of(value.parse(), name)
    if isinstance(value, list | tuple):
        if name.isdecimal() and int(name) < len(value):  # pyright: ignore[reportUnknownArgumentType] - a user's value
            return value[int(name)]  # pyright: ignore[reportUnknownVariableType] - as above
        raise FieldMissingError(f"no index {name!r} in a list of {len(value)}", field=name)  # pyright: ignore[reportUnknownArgumentType] - as above
    fields = getattr(type(value), "__struct_fields__", None) or getattr(
        type(value), "__dataclass_fields__", None
    )
    if fields is not None and name in fields:
        return getattr(value, name)
    raise FieldMissingError(f"no field {name!r} in a value of type {type(value).__name__}", field=name)
