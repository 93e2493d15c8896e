"""Counters, gauges and the facts that move them."""

from __future__ import annotations

import logging

import pytest

from flowcore.errors import ConfigError
from flowruntime.telemetry import metrics as metrics_module
from flowruntime.telemetry.facts import EventsRefused, FactReporter, SubscriberFell
from flowruntime.telemetry.metrics import Metrics, Sample


def test_a_counter_is_one_object_per_name_and_labels() -> None:
    metrics = Metrics()
    metrics.counter("flow_rows_total", "Rows", node="a").value += 2
    metrics.counter("flow_rows_total", "Rows", node="a").value += 1
    metrics.counter("flow_rows_total", "Rows", node="b").value += 5
    assert metrics.snapshot() == [
        Sample("flow_rows_total", (("node", "a"),), 3),
        Sample("flow_rows_total", (("node", "b"),), 5),
    ]


def test_a_gauge_is_read_when_asked_and_can_be_forgotten() -> None:
    metrics, queue = Metrics(), [1, 2]
    forget = metrics.gauge("flow_queued", "Queued rows", lambda: len(queue), stage="s")
    queue.append(3)
    assert [sample.value for sample in metrics.snapshot()] == [3]
    forget()
    assert metrics.snapshot() == []


def test_a_stage_that_came_back_is_not_forgotten_by_its_predecessor() -> None:
    metrics = Metrics()
    forget_old = metrics.gauge("flow_queued", "Queued rows", lambda: 1, stage="s")
    metrics.gauge("flow_queued", "Queued rows", lambda: 2, stage="s")
    forget_old()
    assert [sample.value for sample in metrics.snapshot()] == [2]


def test_one_name_has_one_kind_and_one_set_of_labels() -> None:
    metrics = Metrics()
    metrics.counter("flow_rows_total", "Rows", node="a")
    with pytest.raises(ConfigError, match=r"is a counter with labels \('node',\), not a counter with \(\)"):
        metrics.counter("flow_rows_total", "Rows")
    with pytest.raises(ConfigError, match="not a gauge with"):
        metrics.gauge("flow_rows_total", "Rows", lambda: 0, node="a")


def test_labels_that_are_ids_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_SERIES", 2)
    metrics = Metrics()
    for execution in "ab":
        metrics.counter("flow_x_total", "X", execution=execution)
    with pytest.raises(ConfigError, match=r"refused \{'execution': 'c'\}; labels must be closed sets"):
        metrics.counter("flow_x_total", "X", execution="c")


def test_families_are_shown_to_watchers_also_those_that_come_later() -> None:
    metrics, seen = Metrics(), list[str]()
    metrics.counter("flow_a_total", "A")
    metrics.watch(lambda family: seen.append(family.name))
    metrics.counter("flow_b_total", "B")
    assert seen == ["flow_a_total", "flow_b_total"]


def test_a_fact_is_counted_each_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    metrics = Metrics()
    report = FactReporter(metrics, monotonic=lambda: now[0])
    caplog.set_level(logging.INFO, "flowrx")
    for now[0] in (0.0, 1.0, 2.0, 61.0):
        report(EventsRefused(count=2, cause="closed", detail="the bus is closed"))
    assert [sample.value for sample in metrics.snapshot()] == [8]
    line = "2 event(s) refused by the bus: the bus is closed"
    assert caplog.messages == [line, f"{line} (2 more like it since the last line)"]


def test_facts_of_other_labels_or_without_a_limit_are_logged_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    report = FactReporter(Metrics(), monotonic=lambda: 0.0)
    report(EventsRefused(cause="closed", detail="x"))
    report(EventsRefused(cause="thread_overflow", detail="y"))
    for name in "ab":
        report(SubscriberFell(cause="lagged", subscriber=name, reason="slow"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR", "ERROR"]
