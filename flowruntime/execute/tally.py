"""What a runtime has done so far: requests and runs by how they ended, and how long requests took.

Owns: `Tally`. Does not own: rows (totals), what is happening now (the workers' own figures).

Always holds: every request and every run that has ended is counted once, under the state its result has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowruntime.execute.result import RunResult

STATES: Final[tuple[str, ...]] = ("completed", "partial", "failed", "cancelled")


class Tally:
    """Counts; loop thread only."""

    def __init__(self) -> None:
        self._requests = {**dict.fromkeys(STATES, 0), "paused": 0}
        self._runs = dict.fromkeys(STATES, 0)
        self._timed = 0
        self._seconds = 0.0
        self._longest_s = 0.0
        self.in_progress = 0
        """Requests being answered."""

    def request(self, result: RunResult) -> None:
        """A request has ended with a result."""
        took_s = result.ended_at - result.started_at
        self._requests[result.state.name] += 1
        self._timed += 1
        self._seconds += took_s
        self._longest_s = max(self._longest_s, took_s)

    def cancelled(self) -> None:
        """A request's caller was cancelled, so that nobody has its result."""
        self._requests["cancelled"] += 1

    def run(self, state: str) -> None:
        """A continuous run has ended."""
        self._runs[state] += 1

    def statistics(self) -> dict[str, Any]:
        """The figures; `average_s` and `success_rate` are None before the first request has ended."""
        total = sum(self._requests.values())
        return {
            "requests": {
                **self._requests,
                "total": total,
                "in_progress": self.in_progress,
                "success_rate": self._requests["completed"] / total if total else None,
                "average_s": self._seconds / self._timed if self._timed else None,
                "longest_s": self._longest_s if self._timed else None,
            },
            "ended_runs": {**self._runs, "total": sum(self._runs.values())},
        }
