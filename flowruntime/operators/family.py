"""The children of one row: how many there are, how many are settled.

Owns: `Family`. Does not own: making or collecting children (expand, reopen, collect).
"""

from __future__ import annotations

from flowcore.frame import Failure, Opened


class Family:
    """One parent row and what is known of its children."""

    __slots__ = ("_covered", "failure", "parent", "row", "settled", "size", "total")

    def __init__(self, parent: Opened, row: int) -> None:
        self.parent = parent
        self.row = row
        self._covered = False
        self.size = 0
        """Children opened so far."""
        self.settled = 0
        self.total: int | None = None
        """Known once no further child will come."""
        self.failure: Failure | None = None
        """The parent's own failure, when it broke off while its children were being made."""

    @property
    def closed(self) -> bool:
        """Every child there will ever be is settled."""
        return self.total is not None and self.settled >= self.total

    def cover_parent(self) -> None:
        """Cover the parent's row once every child there will ever be is settled; once, whoever asks."""
        if self.closed and not self._covered:
            self._covered = True
            self.parent.ledger.cover((self.row,))
