"""What a generated function may ask of the frame it is working on.

Owns: `At`: notes of failed rows, columns of the row's root record, fields, contexts; recording of single
    nodes.
Does not own: what becomes of a note (flowruntime.operators.fused).

One instance per fused stage, pointed at one frame at a time; a fused stage is never entered twice at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CodeType
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

    __slots__ = (
        "_fused", "_given", "_kernel", "_lines", "_nodes", "_telemetry", "context", "notes", "opened",
        "unset",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, fused: Fused) -> None:
        self._kernel = kernel
        self._fused = fused
        self._given: dict[int, CodeType] = {}
        self._nodes = [step.name for step in fused.steps]
        self._lines = fused.lean_lines
        self._telemetry = kernel.worker.telemetry
        self.unset = msgspec.UNSET
        self.opened: Opened = None  # pyright: ignore[reportAttributeAccessIssue] - set before every call
        self.notes: list[tuple[int, int, Failure]] = []
        self.context: Callable[[int, str], Any] = self._context

    def note(self, row: int, step: int, error: BaseException, started: float = 0.0) -> None:
        """A row failed at a step: it is counted and told of at once."""
        node = self._nodes[step]
        wanted = self._kernel.worker.letters_of(node) is not None
        value = self._input(step, error) if wanted else msgspec.UNSET
        failure = self._kernel.failed(node, self.opened, row, error, started=started, value=value)
        self.notes.append((row, step, failure))

    def replace(self, row: int, step: int, error: BaseException, started: float = 0.0) -> object:
        """A row failed at a step and goes on with the fallback of its node, which is given back."""
        node = self._nodes[step]
        fallback = self._kernel.plan.graph.nodes[node].fallback
        if fallback is None:
            raise EngineError(f"node {node!r} has no fallback to go on with") from error
        return self._kernel.replace(node, fallback, self.opened, row, error, started=started)

    def note_line(self, row: int, error: BaseException) -> None:
        """A row failed in a straight stage; the line of the generated function tells the step."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        trace = error.__traceback__
        step = self._lines.get(trace.tb_lineno) if trace is not None else None
        if step is None:
            raise EngineError(f"the generated code of {self.opened!r} failed outside its steps") from error
        self.note(row, step, error)

    def _input(self, step: int, error: BaseException) -> object:
        """What the step was given, from the variables of the generated function, which still runs."""
        trace = error.__traceback__
        if trace is None:
            return msgspec.UNSET
        values = self._fused.values
        code = self._given.get(step)
        if code is None:
            text = values.given(self._fused.steps[step])
            code = self._given[step] = compile(text, "<flow input>", "eval")
        frame = trace.tb_frame
        return eval(code, {**values.constants, **frame.f_globals}, frame.f_locals)  # noqa: S307 - text of our own (values), in which users' values are names only

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
