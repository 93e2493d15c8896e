"""How many calls a model takes at once, found out from how long they take.

Owns: `AdaptiveLimit`. Does not own: waiting (resource), what is a failure (flowruntime.resilience.verdict).

Pure: nothing is read but what is passed in. Always holds: `1 <= limit <= most`; no call count grows while the
limit is not made use of; many refusals of one overload lower it once.

A server that has room answers as fast as ever; one that has not lets calls queue, and the time of a call
grows with their number: of `limit` calls under way `limit x (1 - best / now)` only wait there. The limit is
moved so that a tenth of them do: enough to keep the server busy, not enough to make anybody wait.

Times differ for reasons of their own, an answer's length above all. So means are of logarithms; a round is as
many calls as make its mean sure, and counts for slower only by what lies beyond its standard error; answers
that still tell of the limit before are left out; a limit that was lowered in vain, because fewer calls were
no faster, puts the best time in doubt. That is measured anew, at half the limit, when it is in doubt and
every `PROBE_EVERY` rounds. A refusal (429) or a failure lowers the limit by a part; above 0.9 of where it was
refused it then grows by one at a time.

Sources: Netflix, concurrency-limits, Gradient2Limit and VegasLimit (Apache-2.0), for the gradient and the
guard against growth without use; L. Brakmo, L. Peterson, "TCP Vegas: End to End Congestion Avoidance on a
Global Internet", IEEE JSAC 13(8), 1995, for the count of those that wait; N. Cardwell et al., "BBR:
Congestion-Based Congestion Control", ACM Queue 14(5), 2016, for measuring the best time at a lower load.
"""

from __future__ import annotations

import math
from typing import Final

FIRST: Final = 16
"""Calls at once before anything is known."""
PROBE_EVERY: Final = 40
_WAITING: Final = 0.1
"""Share of the calls under way that may wait at the server."""
_SLACK: Final = 0.08
"""So much more or less of it changes nothing."""
_REFUSED: Final = 0.8
_FAILED: Final = 0.9
_GROWTH: Final = 0.1
_HELPED: Final = 0.4
"""Share of a cut by which the time of calls must fall for the cut to have been right."""
_LONGEST_STREAK: Final = 4
_LEAST_ROUND: Final = 24
_MOST_ROUND: Final = 300
_SURE: Final = 0.04
"""Standard error of a round's mean, as a share of it, at which the round is long enough."""
_SURE_STARTING: Final = 0.12
_BY_CHANCE: Final = 2.5
"""Standard errors within which two means may be one."""
_USED: Final = 0.8
"""Share of the limit that must have been under way for it to grow."""


class Start:
    """What a call began under; hand it back when it ends."""

    __slots__ = ("era", "in_flight")

    def __init__(self, era: int, in_flight: int) -> None:
        self.era = era
        self.in_flight = in_flight


class AdaptiveLimit:
    """The limit of one resource.

    Args:
        most: its bound.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(FIRST, most))
        self._era = 0
        """Grows with each change, so that calls begun under an older limit say nothing of this one."""
        self._best: float | None = None
        """Logarithm of how long a call takes that does not wait at the server."""
        self._starting = True
        """Nothing was ever too much: the limit doubles."""
        self._until_probe = PROBE_EVERY
        self._probing: float | None = None
        """The limit to go back to."""
        self._too_much: float | None = None
        """Where the last refusal came."""
        self._cut: tuple[float, float] | None = None
        """The mean before the limit was lowered for it, and by how much it was; both logarithms."""
        self._streak = 0
        """Rounds in a row after which it grew: each time by twice as much, up to double."""
        self._doubtful = False
        """Fewer calls did not make them faster: the best time is in doubt."""
        self._in_flight = 0
        """When the last call began."""
        self._skip = 0
        """Answers that still tell of the limit before."""
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._spread = 0.0
        self._busiest = 0

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        return max(1, int(self._limit))

    @property
    def best_s(self) -> float | None:
        """How long a call takes that does not wait at the server, as far as is known."""
        return None if self._best is None else math.exp(self._best)

    def bound(self, most: int) -> None:
        """Never more than this from now on."""
        self._most = most
        self._limit = min(self._limit, float(most))

    def began(self, in_flight: int) -> Start:
        """A call begins; `in_flight` counts it, too."""
        self._in_flight = in_flight
        return Start(self._era, in_flight)

    def answered(self, start: Start, seconds: float) -> bool:
        """A call that began there took so long; whether the limit has changed."""
        if seconds <= 0:
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        self._count += 1
        logged = math.log(seconds)
        off = logged - self._mean
        self._mean += off / self._count
        self._spread += off * (logged - self._mean)
        self._busiest = max(self._busiest, start.in_flight)
        if self._count < max(_LEAST_ROUND, min(_MOST_ROUND, self.limit)):
            return False
        error = math.sqrt(self._spread / (self._count - 1) / self._count)
        if error > (_SURE_STARTING if self._starting else _SURE) and self._count < _MOST_ROUND:
            return False
        return self._judge(error)

    def refused(self, start: Start) -> bool:
        """The provider said that this was too much; whether the limit has changed."""
        if start.era == self._era:
            self._too_much = self._probing or self._limit
        return self._lower(start, _REFUSED)

    def failed(self, start: Start) -> bool:
        """The call broke or took too long; whether the limit has changed."""
        changed = self._lower(start, _FAILED)
        if self.limit == 1:
            self._starting = True  # an outage says nothing of how much is too much
        return changed

    # --- a round is over --------------------------------------------------------------------------------

    def _judge(self, error: float) -> bool:
        mean, busiest, before = self._mean, self._busiest, self._limit
        if self._probing is not None:
            self._measured(mean, error)
            back, self._probing = self._probing, None
            return self._set(back)
        if self._best is None or mean + _BY_CHANCE * error < self._best:
            self._best = mean
        self._until_probe -= 1
        cut, self._cut = self._cut, None
        chance = (_BY_CHANCE if self._starting else 1.0) * error
        waiting = 1.0 - math.exp(min(0.0, self._best - (mean - chance)))
        if cut is not None and mean > cut[0] - _HELPED * cut[1]:
            self._doubtful, self._until_probe, self._streak = True, 0, 0
        elif waiting > _WAITING + _SLACK:
            self._starting, self._streak = False, 0
            self._set(max(before / 2, before * (1.0 - waiting) / (1.0 - _WAITING)))
            self._cut = (mean, math.log(before / self._limit))
        elif waiting < _WAITING - _SLACK / 2 and busiest >= _USED * self.limit:
            self._grow()
        else:
            self._streak = 0
        if self._until_probe <= 0:
            self._until_probe = PROBE_EVERY
            self._probing, self._cut = self._limit, None
            return self._set(self._limit / 2)
        self._clear()
        return self._limit != before

    def _measured(self, mean: float, error: float) -> None:
        """A round at half the limit: another best time, unless it differs by no more than chance."""
        doubtful, self._doubtful = self._doubtful, False
        if doubtful or self._best is None or abs(mean - self._best) > _BY_CHANCE * error:
            self._best = mean
        else:
            self._best += 0.3 * (mean - self._best)

    def _grow(self) -> None:
        if self._starting:
            self._set(self._limit * 2)
        elif self._too_much is not None and 0.9 * self._too_much <= self._limit:
            self._set(self._limit + 1)
            if self._limit > self._too_much:
                self._too_much = None
        else:
            share = min(1.0, _GROWTH * 2.0 ** min(self._streak, _LONGEST_STREAK))
            self._streak += 1
            self._set(self._limit + max(1.0, share * self._limit))

    def _lower(self, start: Start, factor: float) -> bool:
        if start.era != self._era:
            return False  # it began under another limit, and that has been heard of
        if self._probing is not None:
            self._limit, self._probing = self._probing, None
        self._starting, self._streak = False, 0
        self._cut = None
        return self._set(self._limit * factor)

    def _set(self, limit: float) -> bool:
        before = self.limit
        self._limit = min(float(self._most), max(1.0, limit))
        self._era += 1
        self._clear()
        # The calls that end first behind a change are the short ones, and begun under another load: only once
        # twice as many have ended as were under way do those that end stand for all.
        self._skip = 2 * self._in_flight
        return self.limit != before
