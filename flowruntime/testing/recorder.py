"""Seeing what a run did: every event of a bus, kept in memory for the test that looks at it.

Owns: `EventRecorder`. Does not own: files (flowruntime.events.record).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

from flowcore.events import TERMINAL_KINDS, ExecutionEvent, Gap
from flowruntime.events.bus import EventBus

E = TypeVar("E", bound=ExecutionEvent)

MAX_EVENTS = 1_000_000
"""A test that makes more should look at what it needs through a subscription."""


class EventRecorder:
    """The events published so far, in order; called back by the bus, so nothing is ever missing.

    with recorded(runtime.events) as seen:
        await runtime.execute(workflow, {"text": "a"})
    assert seen.nodes(NodeCompleted) == ["clean", "classify"]
    """

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []
        self.gaps: list[Gap] = []

    def of(self, kind: type[E]) -> list[E]:
        """All of one kind, or of a base class."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """The only one of its kind.

        Raises:
            AssertionError: there is none, or there are several.
        """
        found = self.of(kind)
        if len(found) != 1:
            raise AssertionError(
                f"expected one {kind.__name__}, got {len(found)}; the run was:\n{self.timeline()}"
            )
        return found[0]

    def nodes(self, kind: type[ExecutionEvent]) -> list[str]:
        """Nodes (or stages) that events of one kind are about, in order."""
        return [event.subject for event in self.of(kind) if event.subject is not None]

    def ended(self) -> ExecutionEvent:
        """The one event that ended the run.

        Raises:
            AssertionError: none did, or several: a run has exactly one.
        """
        found = [event for event in self.events if isinstance(event, TERMINAL_KINDS)]
        if len(found) != 1:
            raise AssertionError(
                f"expected one terminal event, got {len(found)}; the run was:\n{self.timeline()}"
            )
        return found[0]

    def timeline(self) -> str:
        """One line per event, for a failing test's message."""
        lines = [
            f"  {e.seq:>5}  {type(e).__name__}{f' {e.subject}' if e.subject else ''}" for e in self.events
        ]
        return "\n".join(lines) or "  (no events)"

    def __call__(self, event: ExecutionEvent | Gap) -> None:
        """Keep `event`; this is the callback given to the bus."""
        if isinstance(event, Gap):
            self.gaps.append(event)
        elif len(self.events) < MAX_EVENTS:
            self.events.append(event)
        else:
            raise MemoryError(f"more than {MAX_EVENTS} events recorded; use a subscription instead")


@contextmanager
def recorded(bus: EventBus) -> Generator[EventRecorder]:
    """Record everything published in the block.

    Raises:
        MemoryError: more than `MAX_EVENTS` were published; at the end of the block.
    """
    recorder = EventRecorder()
    listener = bus.listen(recorder, name="test recorder")
    try:
        yield recorder
    finally:
        listener.close()
    if listener.error is not None:
        raise listener.error
