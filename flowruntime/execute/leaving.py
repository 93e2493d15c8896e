"""Records that a run which is being drained leaves for the next one.

Owns: `Leaving`: which they are, and when nothing is at work for them any more.
Does not own: why a run is drained (models.paid), commits (task).

Always holds: a record that is left is never settled, so that its position is not committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flowcore.frame import Opened


class Leaving:
    """Of one task.

    Args:
        ended: told each time nothing is at work any more for a record that is left.
    """

    __slots__ = ("_ended", "_records", "over")

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended: Final = ended
        self._records: Final[set[tuple[Opened, int]]] = set()
        self.over = 0
        """Records nothing is at work for any more."""

    def __contains__(self, record: tuple[Opened, int]) -> bool:
        return record in self._records

    def add(self, root: Opened, row: int) -> None:
        """Leave a record that is not settled, nor put off by anybody else."""
        if (root, row) not in self._records:
            self._records.add((root, row))
            root.ledger.put_off(row, self._one_is_over)

    def _one_is_over(self) -> None:
        self.over += 1
        self._ended()
