"""How a run is doing, from its StageProgress events: what the live display and the plain lines show.

Owns: `Progress`, the newest figures of every stage and their text; `ModelTotals`, of calls of models.
Does not own: measuring (flowruntime.execute.progress), drawing (display).

Always holds: pure but for what it is told; counts are the newest event's, rates those of the last seconds,
latencies those of the last interval in which a row was done; nothing is estimated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from flowcore.events import LlmCall, StageProgress
from flowruntime.cli.eventlines import seconds

HEAD: Final = ("stage", "rows", "rows/s", "in flight", "queued", "p50", "p99", "dropped", "failed")
NUMBERS: Final = frozenset(range(1, len(HEAD)))
LEFT_OUT_FIRST: Final = ("p50", "queued", "dropped", "rows/s", "in flight", "p99")
"""Columns a narrow terminal has no room for, in this order; those without any figure go before them."""
_BESIDE: Final = 3
"""Blanks a column of the table takes beside its text."""
MOST_SHOWN: Final = 20
RATE_OVER_S: Final = 5.0
"""Batches are done at once and then none for a while: the rate of one second says little."""


class _Recent:
    """One stage: its newest event, with the rate and the latencies to show."""

    def __init__(self) -> None:
        self._intervals: deque[tuple[float, float]] = deque()
        """Rows and seconds, the newest last."""
        self._times: tuple[float | None, float | None] = (None, None)

    def see(self, event: StageProgress) -> StageProgress:
        self._intervals.append((event.rate_per_s * event.interval_s, event.interval_s))
        while len(self._intervals) > 1 and sum(s for _, s in self._intervals) > RATE_OVER_S:
            self._intervals.popleft()
        if event.p99_s is not None:
            self._times = event.p50_s, event.p99_s
        rows, over_s = (sum(part) for part in zip(*self._intervals, strict=True))
        p50_s, p99_s = self._times
        rate_per_s = rows / over_s if over_s else event.rate_per_s
        return msgspec.structs.replace(event, rate_per_s=rate_per_s, p50_s=p50_s, p99_s=p99_s)


class ModelTotals:
    """What calls of models came to, from their events."""

    def __init__(self) -> None:
        self.calls = 0
        self.kept = 0
        """Answered from a cache or the journal, without asking anybody."""
        self.failed = 0
        self.tokens = 0
        self.cost_usd = 0.0
        self.unpriced = 0
        """Calls whose price is not known: they are not in `cost_usd`."""

    def see(self, event: LlmCall) -> None:
        """One more call is over."""
        self.calls += 1
        self.kept += event.cached or event.journaled
        self.failed += event.error is not None
        self.tokens += event.input_tokens + event.output_tokens
        if event.cost_usd is not None:
            self.cost_usd += event.cost_usd
        elif event.attempts:
            self.unpriced += 1

    @property
    def matter(self) -> bool:
        """Whether there is something to tell: tokens were counted, or a call failed."""
        return bool(self.tokens or self.failed)

    def __str__(self) -> str:
        """`models: 12 calls, 3 kept, 1 failed, 4,512 tokens, $0.0034 (2 of unknown price)`."""
        parts = [f"{self.calls:,} calls"]
        if self.kept:
            parts.append(f"{self.kept:,} kept")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        parts.append(f"{self.tokens:,} tokens")
        unknown = f" ({self.unpriced:,} of unknown price)" if self.unpriced else ""
        parts.append(f"${self.cost_usd:,.4f}{unknown}")
        return f"models: {', '.join(parts)}"


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
        self._recent: dict[str, _Recent] = {}
        self.models = ModelTotals()

    def see(self, event: StageProgress) -> None:
        """Take the newest figures of one stage."""
        recent = self._recent.setdefault(event.stage, _Recent())
        self._stages[event.stage] = recent.see(event)

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
        """Records a second, over the last `RATE_OVER_S`."""
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
        parts = [self.headline(elapsed_s), *([str(self.models)] if self.models.matter else [])]
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


def columns_for(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns of `HEAD` that fit into a terminal; none when not even stage, rows and failed do.

    Args:
        rows: under `HEAD`.
        width: of the terminal, in characters.
    """
    widths = [max(len(row[column]) for row in (HEAD, *rows)) + _BESIDE for column in range(len(HEAD))]
    empty = [column for column in range(1, len(HEAD)) if all(row[column] in ("-", "") for row in rows)]
    order = [HEAD.index(name) for name in LEFT_OUT_FIRST]
    left_out = [column for column in order if column in empty] + [c for c in order if c not in empty]
    columns = list(range(len(HEAD)))
    while sum(widths[column] for column in columns) >= width:
        if not left_out:
            return []
        columns.remove(left_out.pop(0))
    return columns


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
