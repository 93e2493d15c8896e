"""control.batch: rows of any records become lists of a given size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from flowcore.node import node
from flowcore.policies import Batch


@node(
    "control.batch", kind="batch", batch=Batch(max_items=100, linger=timedelta(seconds=1)), deterministic=True
)
def batch(items: Sequence[Any]) -> list[Any]:
    """Lists of up to `max_items` values in order of arrival; see the policy `batch: {max_items, linger}`.

    Emits when      `max_items` are there, the first has waited for `linger`, the input ends, or nothing
                    else is in progress and the source has no credit left. A list is a new row; it belongs
                    to all its records.
    Drops           nothing; the last list may be short, none is empty.
    Fails when      never by itself.
    Holds           up to `max_items` values, which stay unsettled until their list is.
    """
    return list(items)
