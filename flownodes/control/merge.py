"""control.merge: several connections become one stream."""

from __future__ import annotations

from typing import Any

from flowcore.node import node


@node("control.merge", kind="merge", deterministic=True)
def merge(value: Any) -> Any:
    """Passes on every value of every connection to its port.

    Emits when      a value comes in, in order of arrival; order between connections is not promised.
    Drops           nothing.
    Fails when      never by itself.
    Cost            none; values of branches that exclude each other keep their row, others become rows
                    of their own.
    """
    return value
