"""What calls of nodes gave, as the journal keeps it, and back.

Owns: the recorded form of a result, `RecordedError`, the id of a wait.
Does not own: storing (flowruntime.state.store), which call is which (journal).

Always holds: what comes back is the same value; what cannot be kept as it is is refused when it is recorded,
with the node and the place in the value, so that no resumed execution goes on with something else. Pure.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from flowcore.definition import NodeDefinition
from flowcore.errors import RunError
from flowcore.store_errors import StoreInputError
from flowcore.values import ValueFormError
from flowruntime.state.store.codec import read_value, write_value

_OUT: Final = "out"
_TYPED: Final = "typed"
_PORTS: Final = "ports"


class RecordedError(RunError):
    """A failure of an earlier pass of the execution, as its journal tells it; it is not tried again."""

    def __init__(self, failure: Mapping[str, Any]) -> None:
        super().__init__(str(failure.get("message", "")))
        self._failure = dict(failure)

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What `describe_error` said of it then."""
        return self._failure

    def facts(self) -> dict[str, object]:
        """As they were told the first time."""
        return dict(self._failure)


def record(definition: NodeDefinition, value: Any) -> dict[str, Any]:
    """The recorded form of what a call gave; a copy, which nobody changes any more.

    Raises:
        StoreInputError: the value, or what an output port has of it, has no form that can be kept.
    """
    if not definition.structured_output:
        return _recorded(definition, _OUT, value)
    ports = {port.name: getattr(value, port.name, msgspec.UNSET) for port in definition.outputs}
    given = {name: each for name, each in ports.items() if each is not msgspec.UNSET}
    return {_PORTS: {name: _recorded(definition, name, each) for name, each in given.items()}}


def recall(definition: NodeDefinition, recorded: Mapping[str, Any]) -> Any:
    """What `record` was given; of a node with several ports an object with an attribute for each."""
    if _PORTS not in recorded:
        return _recalled(definition, _OUT, recorded)
    found: Mapping[str, Any] = recorded[_PORTS]
    return RecalledPorts(
        {
            port.name: _recalled(definition, port.name, found[port.name])
            if port.name in found
            else msgspec.UNSET
            for port in definition.outputs
        }
    )


class RecalledPorts:
    """Outputs by port, as attributes."""

    def __init__(self, ports: Mapping[str, Any]) -> None:
        self.__dict__.update(ports)


def _recorded(definition: NodeDefinition, port: str, value: Any) -> dict[str, Any]:
    what = f"what node type {definition.type!r} gave at {port!r}"
    return record_as(_annotation(definition, port), value, what)


def record_as(annotation: Any, value: Any, what: str) -> dict[str, Any]:
    """The recorded form of one value.

    Args:
        annotation: of the value, for those of a type of their own.
        value: to be kept.
        what: for errors.

    Raises:
        StoreInputError: it has no form that can be kept.
    """
    try:
        return {_OUT: read_value(write_value(value, what=what))}
    except StoreInputError:
        if not (isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value)):
            raise
    return {_TYPED: _built(annotation, value, what)}


def recall_as(annotation: Any, recorded: Mapping[str, Any]) -> Any:
    """What `record_as` was given."""
    if _TYPED in recorded:
        return msgspec.convert(recorded[_TYPED], annotation)
    return recorded[_OUT]


def _built(annotation: Any, value: Any, what: str) -> Any:
    """The plain data of a typed value that can be made of it again."""
    try:
        data = builtins_of(value)
        again = msgspec.convert(data, annotation)
        kept = read_value(write_value(data, what=what))
    except (msgspec.MsgspecError, TypeError, ValueFormError) as fault:
        raise StoreInputError(
            f"{what}: a {type(value).__name__} cannot be kept: {fault}; nothing was stored",
            what=what,
            reason=str(fault),
        ) from fault
    if type(again) is not type(value):
        reason = f"a {type(value).__name__} would come back as a {type(again).__name__}"
        raise StoreInputError(
            f"{what}: {reason}; annotate its port with that type; nothing was stored",
            what=what,
            reason=reason,
        )
    return kept


def _recalled(definition: NodeDefinition, port: str, recorded: Mapping[str, Any]) -> Any:
    return recall_as(_annotation(definition, port), recorded)


def _annotation(definition: NodeDefinition, port: str) -> Any:
    found = definition.output(port)
    return Any if found is None else found.annotation


def builtins_of(value: Any) -> Any:
    """A typed value as data that can be kept: what `msgspec` makes of it, with lists for tuples."""
    return _with_lists(msgspec.to_builtins(value))


def _with_lists(data: Any) -> Any:
    if isinstance(data, list | tuple):
        return [_with_lists(each) for each in cast("Sequence[Any]", data)]
    if isinstance(data, dict):
        return {key: _with_lists(each) for key, each in cast("dict[Any, Any]", data).items()}
    return data


def plain_copy(value: Any, what: str) -> Any:
    """The value as it will come back.

    Raises:
        StoreInputError: it cannot be kept.
    """
    return read_value(write_value(value, what=what))


def wait_id(execution_id: str, node: str, path: str, number: int) -> str:
    """The id of the n-th wait of a node for a row: the same each time the execution goes on.

    Args:
        execution_id: the execution.
        node: the node's id.
        path: lineage of the row.
        number: which wait of the call, from 0.
    """
    text = "\0".join((execution_id, node, path, str(number)))
    return f"w-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def children_of(recorded: Mapping[str, Any]) -> tuple[list[Any], Mapping[str, Any] | None]:
    """What an expanding node yielded for a row, recorded each, and how it failed behind them."""
    return cast("list[Any]", recorded["children"]), recorded.get("failure")
