"""Plain counters of one node in one run; telemetry and results read them, nothing is published per row."""

from __future__ import annotations

import msgspec


class NodeCounts(msgspec.Struct):
    """Rows of one node by what became of them."""

    completed: int = 0
    failed: int = 0
    handled: int = 0
    """Of the failed ones: those an error connection has taken, whose letters are kept, or `replaced` ones."""
    replaced: int = 0
    """Of the handled ones: those that went on with the node's fallback."""
    dropped: int = 0
    unrouted: int = 0
    """Rows no branch took."""
    retried: int = 0
    cancelled: int = 0
    held: int = 0
    """Rows that wait: they are stored, settled, and come back; not `completed`, not `dropped`."""
    dead_lettered: int = 0
    """Dead letters kept; a row made of several records has one for each."""

    def add(self, other: NodeCounts) -> None:
        self.completed += other.completed
        self.failed += other.failed
        self.handled += other.handled
        self.replaced += other.replaced
        self.dropped += other.dropped
        self.unrouted += other.unrouted
        self.retried += other.retried
        self.cancelled += other.cancelled
        self.held += other.held
        self.dead_lettered += other.dead_lettered
