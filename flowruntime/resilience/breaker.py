"""The circuit breaker: whether a call may be made now, given how the last ones ended.

Owns: `Circuit`, the states closed, open and half-open and the steps between them.
Does not own: which errors count (outcome), whose calls it sees (resources), waiting (flowcontrol.pool).

Pure: time is passed in, in seconds of any clock that never goes back. Holds one flag and one time per call
of its window.

    closed      calls pass; `failures` of the last `window` calls within `period`   -> open
    open        calls are refused until `open_for` is over (or what a server asked) -> half-open
    half-open   one probe passes, all others are refused; it succeeds               -> closed
                                                         it fails                   -> open
                                                         it ends without a verdict  -> the next call probes

Calls that were under way when the circuit opened say nothing any more: only the probe decides.
"""

from __future__ import annotations

from collections import deque

from flowcore.events import CircuitState
from flowcore.policies import Breaker


class Ticket:
    """One call that was let through; hand it back to `Circuit.ended` whatever became of the call."""

    __slots__ = ("era", "probe")

    def __init__(self, era: int, *, probe: bool) -> None:
        self.era = era
        self.probe = probe


class Circuit:
    """One circuit, shared by all calls of one resource."""

    __slots__ = ("_era", "_failures", "_last", "_probing", "_reopens_at", "opened", "policy", "state")

    def __init__(self, policy: Breaker) -> None:
        self.policy = policy
        """May be made stricter while calls are under way."""
        self._last: deque[tuple[float, bool]] = deque()
        """When each of the last calls ended, and whether it failed."""
        self._failures = 0
        self._era = 0
        """Grows with every change of state: a ticket of another era has no say."""
        self._probing = False
        self._reopens_at = 0.0
        self.state: CircuitState = "closed"
        self.opened = 0
        """How often it has opened."""

    def admit(self, now: float) -> Ticket | None:
        """A ticket when the call may be made; None when it is refused: see `wait_s`."""
        if self.state == "closed":
            return Ticket(self._era, probe=False)
        if self.state == "open":
            if now < self._reopens_at:
                return None
            self._go("half_open")
        if self._probing:
            return None
        self._probing = True
        return Ticket(self._era, probe=True)

    @property
    def probing(self) -> bool:
        """A probe is under way."""
        return self._probing

    def is_current(self, ticket: Ticket) -> bool:
        """Whether nothing has changed since the ticket was given: its call still counts."""
        return ticket.era == self._era

    def wait_s(self, now: float) -> float:
        """Seconds until asking again makes sense; 0 when it does now, or when a probe is under way."""
        return max(0.0, self._reopens_at - now) if self.state == "open" else 0.0

    def succeeded(self, ticket: Ticket, now: float) -> bool:
        """The call went well, or failed for a reason of its own: what it called is there.

        Returns:
            Whether the state has changed.
        """
        if ticket.era != self._era:
            return False
        if ticket.probe:
            self._go("closed")
            return True
        self._note(now, failed=False)
        return False

    def failed(self, ticket: Ticket, now: float, *, retry_after_s: float | None = None) -> bool:
        """What it called did not answer, or said that it cannot.

        Args:
            ticket: of the call.
            now: when it ended.
            retry_after_s: how long the other side asked to be left alone; the circuit stays open that long.

        Returns:
            Whether the state has changed.
        """
        if ticket.era != self._era:
            return False
        if not ticket.probe:
            self._note(now, failed=True)
            if self._failures < self.policy.failures:
                return False
        self._reopens_at = now + max(self.policy.open_for.total_seconds(), retry_after_s or 0.0)
        self._go("open")
        self.opened += 1
        return True

    def given_up(self, ticket: Ticket) -> None:
        """The call was cancelled, or told to slow down: no verdict, and the next call may probe."""
        if ticket.era == self._era and ticket.probe:
            self._probing = False

    def _note(self, now: float, *, failed: bool) -> None:
        last, policy = self._last, self.policy
        last.append((now, failed))
        self._failures += failed
        oldest = now - policy.period.total_seconds()
        while len(last) > policy.window or last[0][0] < oldest:
            self._failures -= last.popleft()[1]

    def _go(self, state: CircuitState) -> None:
        self.state = state
        self._era += 1
        self._probing = False
        self._last.clear()
        self._failures = 0
