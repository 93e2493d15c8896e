"""How a run is doing, from its StageProgress events: what the live display and the plain lines show.

Owns: `Progress`, the newest figures of every stage and their text.
Does not own: measuring (flowruntime.execute.progress), drawing (display).

Always holds: pure but for what it is told; figures are the newest event's, never estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from flowcore.events import StageProgress
from flowruntime.cli.eventlines import seconds

HEAD: Final = ("stage", "rows", "rows/s", "in flight", "queued", "p50", "p99", "dropped", "failed")
NUMBERS: Final = frozenset(range(1, len(HEAD)))
MOST_SHOWN: Final = 20


class Progress:
    """Newest figures of each stage.

    Args:
        sources: their ids: what they hand over are the records.
        sinks: their ids: what they complete are the rows written.
    """

    def __init__(self, sources: Iterable[str], sinks: Iterable[str]) -> None:
        self._sources = frozenset(sources)
        self._sinks = tuple(sinks)
        self._stages: dict[str, StageProgress] = {}

    def see(self, event: StageProgress) -> None:
        """Take the newest figures of one stage."""
        self._stages[event.stage] = event

    @property
    def records(self) -> int:
        """Records read so far."""
        return sum(self._stages[name].counts.completed for name in self._sources & self._stages.keys())

    @property
    def failed(self) -> int:
        return sum(stage.counts.failed for stage in self._stages.values())

    @property
    def in_flight(self) -> int:
        """Records read and not settled."""
        return sum(self._stages[name].in_flight for name in self._sources & self._stages.keys())

    @property
    def rate_per_s(self) -> float:
        """Records a second, over the last interval."""
        return sum(self._stages[name].rate_per_s for name in self._sources & self._stages.keys())

    def written(self) -> Mapping[str, int]:
        """Rows written, by sink."""
        return {name: self._stages[name].counts.completed for name in self._sinks if name in self._stages}

    def headline(self, elapsed_s: float) -> str:
        """One line: `12 s  1,234 records  103/s  64 in flight  0 failed`."""
        return (
            f"{seconds(elapsed_s)}  {self.records:,} records  {self.rate_per_s:,.0f}/s"
            f"  {self.in_flight:,} in flight  {self.failed:,} failed"
        )

    def line(self, elapsed_s: float) -> str:
        """The headline, the slowest stage and the sinks, for a log."""
        timed = [stage for stage in self._stages.values() if stage.p99_s is not None]
        slowest = max(timed, key=lambda stage: stage.p99_s or 0.0, default=None)
        parts = [self.headline(elapsed_s)]
        if slowest is not None:
            parts.append(f"slowest {slowest.stage} p50 {seconds(slowest.p50_s)} p99 {seconds(slowest.p99_s)}")
        parts += [f"{name} {count:,}" for name, count in self.written().items()]
        return "  ".join(parts)

    def rows(self, most: int = MOST_SHOWN) -> list[Sequence[str]]:
        """One row per stage under `HEAD`; of a large workflow those with the most to say."""
        stages = list(self._stages.values())
        shown = stages if len(stages) <= most else sorted(stages, key=_weight, reverse=True)[:most]
        kept = {stage.stage for stage in shown}
        rows = [_row(stage) for stage in stages if stage.stage in kept]
        if len(stages) > most:
            rows.append((f"and {len(stages) - most} more", *("" for _ in HEAD[1:])))
        return rows


def _weight(stage: StageProgress) -> tuple[int, int, float]:
    return stage.counts.failed, stage.in_flight + stage.queued, stage.p99_s or 0.0


def _row(stage: StageProgress) -> Sequence[str]:
    return (
        stage.stage,
        f"{stage.counts.completed:,}",
        f"{stage.rate_per_s:,.0f}",
        _count(stage.in_flight),
        _count(stage.queued),
        seconds(stage.p50_s),
        seconds(stage.p99_s),
        _count(stage.counts.dropped),
        _count(stage.counts.failed),
    )


def _count(count: int) -> str:
    return f"{count:,}" if count else "-"
