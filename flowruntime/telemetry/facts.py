"""Facts for operators: one frozen type says both which counter it moves and what is logged, and how often.

Owns: `Fact`, the facts of the event bus, and `FactReporter`, which counts and logs them.
Does not own: the counters' export (metrics, otel), the form of log lines (logs). What happened in a workflow
is an `ExecutionEvent`; a fact is about FlowRx itself.

Always holds: labels are closed sets, never ids; a fact is counted each time and logged at most once per
`EVERY_S` and label set, the next line says how many were left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

import msgspec

from flowruntime.telemetry.metrics import Metrics

Report: TypeAlias = Callable[["Fact"], None]

WARNING: Final = 30
ERROR: Final = 40
"""Levels of `logging`, which is imported when there is something to log."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to FlowRx. Subclasses set the class variables and write `line`."""

    METRIC: ClassVar[str]
    HELP: ClassVar[str]
    LABELS: ClassVar[tuple[str, ...]] = ()
    LEVEL: ClassVar[int] = WARNING
    EVERY_S: ClassVar[float] = 60.0

    count: int = 1

    def line(self) -> str:
        """For the log: what, where, the value, what to do."""
        raise NotImplementedError

    def labels(self) -> dict[str, str]:
        """Label names and values of its counter."""
        return {name: str(getattr(self, name)) for name in self.LABELS}


class SubscriberFell(Fact, frozen=True, kw_only=True):
    """A subscriber was taken off the bus against its will."""

    METRIC: ClassVar[str] = "flow_subscribers_fell_total"
    HELP: ClassVar[str] = "Subscribers the event bus disconnected"
    LABELS: ClassVar[tuple[str, ...]] = ("cause",)
    LEVEL: ClassVar[int] = ERROR
    EVERY_S: ClassVar[float] = 0.0

    cause: str
    """`raised`, `lagged`, `stalled` or `unflushed`."""
    subscriber: str
    reason: str

    def line(self) -> str:
        """For the log."""
        return f"event subscriber {self.subscriber!r} was disconnected: {self.reason}"


class EventsRefused(Fact, frozen=True, kw_only=True):
    """Events that reached nobody: the bus was closed, or threads were faster than the loop."""

    METRIC: ClassVar[str] = "flow_events_refused_total"
    HELP: ClassVar[str] = "Events the bus could not take"
    LABELS: ClassVar[tuple[str, ...]] = ("cause",)

    cause: str
    """`closed` or `thread_overflow`."""
    detail: str

    def line(self) -> str:
        """For the log."""
        return f"{self.count} event(s) refused by the bus: {self.detail}"


class FactReporter:
    """Counts every fact in `metrics` and logs some.

    Args:
        metrics: where the counters live.
        monotonic: seconds; decides how often a fact is logged.
    """

    def __init__(self, metrics: Metrics, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._logged: dict[tuple[type[Fact], tuple[str, ...]], tuple[float, int]] = {}

    def __call__(self, fact: Fact) -> None:
        """Count `fact`, and log it unless one like it was logged just now."""
        labels = fact.labels()
        self._metrics.counter(fact.METRIC, fact.HELP, **labels).value += fact.count
        key = (type(fact), tuple(labels.values()))
        now = self._monotonic()
        last = self._logged.get(key)
        if last is not None and now - last[0] < fact.EVERY_S:
            self._logged[key] = (last[0], last[1] + 1)
            return
        left_out = f" ({last[1]} more like it since the last line)" if last is not None and last[1] else ""
        self._logged[key] = (now, 0)
        import logging

        logging.getLogger("flowrx").log(fact.LEVEL, "%s%s", fact.line(), left_out)
