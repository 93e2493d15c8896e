"""control.gather: several connections become one list."""

from __future__ import annotations

from typing import Any

from flowcore.definition import Gather
from flowcore.node import node


@node("control.gather", deterministic=True)
def gather(values: Gather[Any]) -> list[Any]:
    """The values of all connections for one row, in order of declaration.

    Emits when      all connections are done with the row; those that dropped it are left out of the list.
    Drops           nothing.
    Fails when      never by itself; a row that failed before one of the connections is skipped here.
    Cost            O(connections) a row; a row waits for its slowest connection, other rows do not.
    """
    return list(values)
