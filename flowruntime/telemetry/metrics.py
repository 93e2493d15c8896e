"""Counters and gauges as plain attributes, read when someone asks.

Owns: `Counter`, `Metrics`, `Sample`.
Does not own: export (otel), what is counted (the stages, buffers and facts that hold the counters).

Always holds: counting is one attribute increment, no lock, no call; nothing of OpenTelemetry is imported
here. Counters are moved on the loop thread. A family has one kind, one help text and one set of label names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from flowcore.errors import ConfigError

MetricKind: TypeAlias = Literal["counter", "gauge"]
Labels: TypeAlias = tuple[tuple[str, str], ...]

MAX_SERIES = 10_000
"""Per family: labels are closed sets, so more of them is a mistake that would eat memory."""


class Counter:
    """Hold it and move it: `counter.value += 1`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def __repr__(self) -> str:
        return f"Counter({self.value})"


class Sample(msgspec.Struct, frozen=True):
    """One number at the moment of asking."""

    name: str
    labels: Labels
    value: float


class Family(msgspec.Struct, kw_only=True):
    """All series of one name."""

    name: str
    kind: MetricKind
    help: str
    unit: str
    label_names: tuple[str, ...]
    read: dict[Labels, Callable[[], float]]

    def samples(self) -> list[Sample]:
        """Its numbers now."""
        return [Sample(self.name, labels, read()) for labels, read in tuple(self.read.items())]


class Metrics:
    """The counters and gauges of one runtime."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._counters: dict[tuple[str, Labels], Counter] = {}
        self._watchers: list[Callable[[Family], None]] = []

    def counter(self, name: str, help: str, /, *, unit: str = "1", **labels: str) -> Counter:
        """The counter of that name and those labels; the same object each time.

        Raises:
            ConfigError: the name is a gauge, has other label names, or too many series.
        """
        key = (name, _labels(labels))
        found = self._counters.get(key)
        if found is None:
            counter = found = Counter()
            self._series(name, "counter", help, unit, key[1], lambda: counter.value)
            self._counters[key] = counter
        return found

    def gauge(
        self, name: str, help: str, /, read: Callable[[], float], *, unit: str = "1", **labels: str
    ) -> Callable[[], None]:
        """Ask `read` whenever metrics are read; returns how to stop that, for stages that come and go."""
        series = _labels(labels)
        family = self._series(name, "gauge", help, unit, series, read)

        def forget() -> None:
            if family.read.get(series) is read:
                del family.read[series]

        return forget

    def total(
        self, name: str, help: str, /, read: Callable[[], float], *, unit: str = "1", **labels: str
    ) -> None:
        """A counter kept elsewhere: `read` gives its value, which never falls."""
        self._series(name, "counter", help, unit, _labels(labels), read)

    def families(self) -> tuple[Family, ...]:
        """All there are, by order of first use."""
        return tuple(self._families.values())

    def snapshot(self) -> list[Sample]:
        """Every number now, by order of first use.

        Raises:
            whatever a gauge raises: a gauge only reads attributes.
        """
        return [sample for family in self._families.values() for sample in family.samples()]

    def watch(self, on_family: Callable[[Family], None]) -> None:
        """Call `on_family` for each family there is and each that comes."""
        self._watchers.append(on_family)
        for family in self.families():
            on_family(family)

    def _series(
        self, name: str, kind: MetricKind, help: str, unit: str, labels: Labels, read: Callable[[], float]
    ) -> Family:
        names = tuple(label for label, _ in labels)
        family = self._families.get(name)
        if family is None:
            family = Family(name=name, kind=kind, help=help, unit=unit, label_names=names, read={})
            self._families[name] = family
            for on_family in self._watchers:
                on_family(family)
        if (family.kind, family.label_names) != (kind, names):
            raise ConfigError(
                f"metric {name!r} is a {family.kind} with labels {family.label_names!r}, "
                f"not a {kind} with {names!r}; give the new one another name",
                metric=name,
            )
        if len(family.read) >= MAX_SERIES:
            raise ConfigError(
                f"metric {name!r} has {MAX_SERIES} series already, refused {dict(labels)!r}; "
                "labels must be closed sets, never ids",
                metric=name,
            )
        family.read[labels] = read
        return family


def _labels(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
