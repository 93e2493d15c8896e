"""The meter of one stage: rows and latencies since the last progress event.

Owns: `StageMeter`. Does not own: who feeds it (operators, while someone watches progress) or shows it
    (progress).
"""

from __future__ import annotations

from collections import deque


class StageMeter:
    """Rows and latencies of one node since the last progress event; filled only while someone watches.

    A waiting node is measured by row, from its first start to its end, backoffs included; a fused stage by
    frame, the same figure for each of its nodes; a sink by write.
    """

    __slots__ = ("durations", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.durations: deque[float] = deque(maxlen=1024)

    def observe(self, rows: int, duration_s: float) -> None:
        self.rows += rows
        self.durations.append(duration_s)

    def percentile(self, share: float) -> float | None:
        """Seconds; None when nothing was seen."""
        if not self.durations:
            return None
        ordered = sorted(self.durations)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
