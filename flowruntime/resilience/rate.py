"""The rate limit: when the next call may begin so that no window of time sees more than was declared.

Owns: `RateLimit`, the generic cell rate algorithm. Does not own: waiting (flowcontrol.permits).

Pure: time is passed in. Over any window of w seconds at most `burst` + w x rows / per calls begin. Holds one
number.

Source: ITU-T I.371, the generic cell rate algorithm in its virtual scheduling form.
"""

from __future__ import annotations

from flowcore.errors import LimitExceededError
from flowcore.policies import Rate


class RateLimit:
    """One bucket."""

    __slots__ = ("_due", "_rate", "begun", "name", "waits")

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self._rate = rate
        self._due = float("-inf")
        """When the bucket will be empty again."""
        self.begun = 0
        self.waits = 0
        """How often a call was told to wait."""

    @property
    def rate(self) -> Rate:
        return self._rate

    def set(self, rate: Rate) -> None:
        """Change the rate from now on; what has begun under the old one stays begun."""
        self._rate = rate

    def wait_s(self, now: float, calls: int = 1) -> float:
        """Seconds until `calls` may begin at once; 0: now.

        Raises:
            LimitExceededError: more calls than the bucket ever holds.
        """
        rate = self._rate
        if calls > rate.burst:
            raise LimitExceededError(
                f"rate {self.name!r} lets {rate.burst} calls begin at once, and {calls} were asked for; "
                "raise its burst, or make smaller batches",
                limit=self.name,
                burst=rate.burst,
                calls=calls,
            )
        spacing = rate.per.total_seconds() / rate.rows
        return max(0.0, self._due + spacing * (calls - rate.burst) - now)

    def begin(self, now: float, calls: int = 1) -> None:
        """`calls` begin now; ask `wait_s` before."""
        spacing = self._rate.per.total_seconds() / self._rate.rows
        self._due = max(self._due, now) + spacing * calls
        self.begun += calls
