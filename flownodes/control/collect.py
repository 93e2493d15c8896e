"""control.collect: the rows that stem from one record become one list again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowcore.node import node


@node("control.collect", kind="collect", deterministic=True)
def collect(items: Sequence[Any]) -> list[Any]:
    """The values of all rows one row was split into, in their order: the counterpart of `transform.split`.

    Emits when      every row of the record is done; an empty list when none is left.
    Drops           nothing; rows that were dropped on the way are not in the list.
    Fails when      never by itself.
    Holds           the values of a record until its last one is there; bounded by `max_children` of the node
                    that split it.
    """
    return list(items)
