"""Which of several failures a row is absent for, where inputs meet.

Owns: `first_cause`. Does not own: reporting failures (kernel), error ports (fused).
"""

from __future__ import annotations

from flowcore.frame import Failure


def first_cause(known: Failure | None, found: Failure | None, receiver: str) -> Failure | None:
    """The failure to keep: the first one, but for one on a connection into the receiver itself.

    That one was counted as the receiver's own and belongs to its error port, whichever input came first.
    """
    if known is None or (found is not None and found.node == receiver != known.node):
        return found
    return known
