"""The last events of a bus, so that a subscriber who was away can go on where it left.

Owns: the ring and the question "what came after `seq`".
Does not own: numbering and delivery (bus).

Always holds: at most `capacity` events and gaps, the newest ones, without a hole up to the newest published.
"""

from __future__ import annotations

from collections import deque

import msgspec

from flowcore.events import ExecutionEvent, Gap


class History:
    """A ring; a receiver of the bus like any other, always the first. Capacity 0 keeps nothing."""

    def __init__(self, capacity: int) -> None:
        self._entries: deque[ExecutionEvent | Gap] = deque(maxlen=capacity)
        self.capacity = capacity

    def __len__(self) -> int:
        return len(self._entries)

    def deliver(self, event: ExecutionEvent) -> None:
        """Keep it, and let the oldest go."""
        self._entries.append(event)

    def skip(self, gap: Gap) -> None:
        """Keep the note that these were published and reached nobody."""
        self._entries.append(gap)

    def after(self, seq: int, newest: int) -> list[ExecutionEvent | Gap]:
        """Everything published after `seq` up to `newest`; first a gap for what is no longer held.

        Cost: O(capacity).
        """
        kept = [_cut(entry, seq) for entry in self._entries if _last(entry) > seq]
        first_kept = _first(kept[0]) if kept else newest + 1
        lost = first_kept - seq - 1
        if lost:
            kept.insert(0, Gap(missed=lost, first_seq=seq + 1, last_seq=first_kept - 1))
        return kept


def _first(entry: ExecutionEvent | Gap) -> int:
    return entry.first_seq if isinstance(entry, Gap) else entry.seq


def _last(entry: ExecutionEvent | Gap) -> int:
    return entry.last_seq if isinstance(entry, Gap) else entry.seq


def _cut(entry: ExecutionEvent | Gap, seq: int) -> ExecutionEvent | Gap:
    if not isinstance(entry, Gap) or entry.first_seq > seq:
        return entry
    return msgspec.structs.replace(entry, missed=entry.last_seq - seq, first_seq=seq + 1)
