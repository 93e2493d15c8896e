"""How much may begin within any minute: requests, or tokens that are reserved first and counted afterwards.

Owns: `Window`, the ledger of one limit, and `Ceiling`, what a provider says is left.
Does not own: waiting (line, resource), estimating (estimate).

Pure: time is passed in, in seconds of any clock that never goes back. What is entered in the ledger is at
most `limit` in any 60 seconds. What a call turned out to have taken beyond its reservation is a debt: it is
entered as room comes free, and nothing else begins before that. Holds at most 601 numbers.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from flowcore.errors import LimitExceededError

PERIOD_S: Final = 60.0
_SLOTS: Final = 600
_SLOT_S: Final = PERIOD_S / _SLOTS
"""Entries of one slot leave the window together, as if all had come at its end: none early."""


class Reservation:
    """What one call was let through with; hand it to `Window.true_up` when it is known what it took."""

    __slots__ = ("amount", "slot")

    def __init__(self, slot: int, amount: int) -> None:
        self.slot = slot
        self.amount = amount


class Window:
    """The ledger of one limit per minute.

    Args:
        name: in errors.
        limit: of any 60 seconds; None: none, and nothing is kept.
    """

    __slots__ = ("_entries", "_used", "debt", "limit", "name", "total")

    def __init__(self, name: str, limit: int | None) -> None:
        self.name: Final = name
        self.limit = limit
        self._entries: deque[tuple[int, int]] = deque()
        self._used = 0
        self.debt = 0
        """Taken, and not entered yet."""
        self.total = 0
        """All that was reserved or found to be taken."""

    def wait_s(self, now: float, amount: int) -> float:
        """Seconds until asking again makes sense; 0: `amount` may be reserved now.

        Raises:
            LimitExceededError: it is more than the limit lets through in any minute.
        """
        if self.limit is None:
            return 0.0
        if amount > self.limit:
            raise LimitExceededError(
                f"{self.name}: the call would take {amount:,}, and {self.limit:,} are allowed in a minute; "
                "make the request smaller, or raise the limit",
                limit=self.name,
                allowed=self.limit,
                asked=amount,
            )
        self._settle(now)
        missing = self._used + self.debt + amount - self.limit
        if missing <= 0:
            return 0.0
        for slot, entered in self._entries:
            missing -= entered
            if missing <= 0:
                return max(0.0, _leaves(slot) - now)
        return max(0.0, _leaves(self._entries[-1][0]) - now)  # the debt is more than a minute's worth

    def reserve(self, now: float, amount: int) -> Reservation:
        """Take `amount`; ask `wait_s` before."""
        self.total += amount
        slot = int(now / _SLOT_S)
        if self.limit is not None:
            self._enter(slot, amount)
        return Reservation(slot, amount)

    def true_up(self, reservation: Reservation, actual: int, now: float) -> None:
        """The call took `actual`: what was too much is free again, what was too little is owed."""
        more = actual - reservation.amount
        self.total += more
        reservation.amount = actual
        if self.limit is None or not more:
            return
        self._settle(now)
        if more > 0:
            self.debt += more
            self._settle(now)
            return
        for index, (slot, entered) in enumerate(self._entries):
            if slot == reservation.slot:
                less = min(-more, entered)
                self._entries[index] = (slot, entered - less)
                self._used -= less
                return

    def used(self, now: float) -> int:
        """Within the last minute."""
        self._settle(now)
        return self._used

    def tighten(self, limit: int | None) -> bool:
        """Keep to the smaller limit from now on; whether that changes anything."""
        if limit is None or (self.limit is not None and limit >= self.limit):
            return False
        self.limit = limit
        return True

    def _enter(self, slot: int, amount: int) -> None:
        entries = self._entries
        if entries and entries[-1][0] == slot:
            entries[-1] = (slot, entries[-1][1] + amount)
        else:
            entries.append((slot, amount))
        self._used += amount

    def _settle(self, now: float) -> None:
        """Let go of what is older than a minute, and pay what is owed as far as there is room."""
        entries = self._entries
        while entries and _leaves(entries[0][0]) <= now:
            self._used -= entries.popleft()[1]
        if self.debt and self.limit is not None:
            paid = min(self.debt, self.limit - self._used)
            if paid > 0:
                self.debt -= paid
                self._enter(int(now / _SLOT_S), paid)


def _leaves(slot: int) -> float:
    """When an entry of this slot is a minute old, whenever in the slot it was made."""
    return (slot + 1) * _SLOT_S + PERIOD_S


class Ceiling:
    """What a provider said is left, until it says something newer or everything is back.

    It can only hold calls back that a `Window` lets through. Between two answers what is left grows evenly up
    to the provider's own limit, where it told that and when all will be back: its buckets fill that way.
    """

    __slots__ = ("_at", "_full", "_left", "_until")

    def __init__(self) -> None:
        self._left = 0.0
        self._full: float | None = None
        self._at = 0.0
        self._until = float("-inf")

    def heard(
        self, now: float, *, left: int | None, reset_s: float | None, full: int | None, under_way: int
    ) -> None:
        """An answer came with its headers.

        Args:
            now: when.
            left: what the provider has left; None: not said, and the older word stays.
            reset_s: until everything is back; None: not said, and then nothing can be held back for it.
            full: what everything is.
            under_way: reserved by calls the provider may not have counted yet.
        """
        if left is None or reset_s is None or reset_s <= 0:
            return
        self._left = float(max(0, left - under_way))
        self._full = None if full is None else float(full)
        self._at, self._until = now, now + reset_s

    def wait_s(self, now: float, amount: int) -> float:
        """Seconds until `amount` is left, or nothing is known any more."""
        if now >= self._until:
            return 0.0
        if amount <= self._available(now):
            return 0.0
        left_s = self._until - now
        if self._full is None or self._full <= self._left:
            return left_s
        pace = (self._full - self._left) / (self._until - self._at)
        return min(left_s, max(0.001, (amount - self._available(now)) / pace))

    def begin(self, now: float, amount: int) -> None:
        """`amount` is taken."""
        if now < self._until:
            self._left -= amount

    def _available(self, now: float) -> float:
        if self._full is None or self._full <= self._left:
            return self._left
        return self._left + (self._full - self._left) * (now - self._at) / (self._until - self._at)
