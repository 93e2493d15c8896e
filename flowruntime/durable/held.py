"""A row of a continuous run that waits, as it is stored: an execution of its own, with all it needs to go on.

Owns: `HeldRow`, its id, its stored form; the marks by which a store finds rows that may go on and rows that
are done.
Does not own: storing it (holds), when it is asked for (holding), the rules of waits (flowcore.waits).

The states of its execution: pending, it waits; paused and owned by READY, it may go on; running, a run has
it; then an end, owned by DONE: that one stays for REMEMBERED, so that a record that is read again is known.

Always holds: the id of a row follows from where its record was read and its way from there, not from when:
a record that comes again after a crash is the same row. Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final, cast

import msgspec

from flowcore.dead_letters import Origin
from flowcore.store_errors import StoreInputError

HELD: Final = object()
"""As `Job.extra`: the row is stored, and new to the store."""
KNOWN: Final = object()
"""As `Job.extra`: the row is stored, and was so before its record was read again."""
READY: Final = "$row ready"
"""As the owner of an execution whose row may go on."""
DONE: Final = "$row done"
"""As the owner of one whose row has come to its end."""
REMEMBERED: Final = timedelta(days=7)
"""How long a row that is done is known, should its record be read again."""
_PREFIX: Final = "row-"
_HELD: Final = "held"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a row comes from: its record's place in its source, and its way from there."""

    source: str
    partition: str
    position: Any
    """Plain; None: the source keeps none, and `record` is a name no other record ever has."""
    record: str
    """Its number within what one position covers, or its name."""
    path: str
    """Its lineage within the record, and the nodes that held it before."""


class HeldRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that waits at a node."""

    node: str
    place: Place
    origin: dict[str, Any]
    """Of its record, as dead letters tell it."""
    given: dict[str, Any]
    """What the node was given, recorded, by port."""
    record: dict[str, Any]
    """The source's record, recorded."""
    key: Any = None
    headers: dict[str, Any] = {}
    time: str | None = None
    """Event time, ISO 8601."""
    answers: list[dict[str, Any]] = []
    """What came of earlier waits of this row at this node, in order; see `outcome_of`."""

    @property
    def event_time(self) -> datetime | None:
        return None if self.time is None else datetime.fromisoformat(self.time)

    @property
    def first_origin(self) -> Origin:
        """Of its record, which was read once."""
        return msgspec.convert(self.origin, Origin)

    def to_data(self) -> dict[str, Any]:
        """As the `inputs` of an execution."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            _HELD: fields | {"place": {name: getattr(self.place, name) for name in Place.__struct_fields__}}
        }


def is_held(inputs: Any) -> bool:
    """Whether these are the inputs of an execution that is a row."""
    return isinstance(inputs, dict) and set(cast("dict[Any, Any]", inputs)) == {_HELD}


def may_be_row(execution_id: str) -> bool:
    """Whether an execution of that id can be a row; `is_held` tells."""
    return execution_id.startswith(_PREFIX)


def held_of(inputs: Any) -> HeldRow:
    """What `HeldRow.to_data` gave.

    Raises:
        StoreInputError: it is none, or of another version.
    """
    try:
        fields: dict[str, Any] = dict(inputs[_HELD])
        fields["place"] = Place(**fields["place"])
        return HeldRow(**fields)
    except (KeyError, TypeError) as fault:
        raise StoreInputError(
            "the execution is no row of a continuous run that this version of FlowRx can read; nothing "
            "was changed",
            what="inputs",
            reason=str(fault),
        ) from fault


def row_id(workflow: str, node: str, place: Place, number: int) -> str:
    """The id of a row that waits.

    Args:
        workflow: id of the workflow, or its name.
        node: where it waits.
        place: where it comes from.
        number: of the first thing it waits for, among all it has waited for there.
    """
    parts = (workflow, node, place.source, place.partition, place.position, place.record, place.path, number)
    text = msgspec.json.encode(parts, order="sorted")
    return f"{_PREFIX}{hashlib.sha256(text).hexdigest()[:24]}"


def way_on(row: HeldRow, path: str) -> Place:
    """The place of a row that stems from one that was held before: further on the same way."""
    before = f"{row.place.path}>{row.node}.{len(row.answers)}"
    return msgspec.structs.replace(row.place, path=f"{before}/{path}" if path else before)
