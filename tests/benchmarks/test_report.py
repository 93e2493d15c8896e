"""What people read: nothing measured is left out, nothing is claimed that was not measured."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import NAMES, benchmark, merged
from benchmarks.plot import marks, svg
from benchmarks.report import number, page, table


def figures(median: float) -> dict[str, Any]:
    return {"median": median, "min": median, "max": median, "quartiles": [median, median], "repeats": 9}


ROW: dict[str, Any] = {
    "work": "a <chain>",
    "unit": "ms",
    "better": "lower",
    "ours": figures(10.0),
    "peers": {"slow | peer": figures(40.0), "fast peer": figures(5.0)},
    "ratios": {"slow | peer": 0.25, "fast peer": 2.0},
    "bar": "<= 5 ms",
    "met": False,
    "missed": ["<= 5 ms"],
    "absent": {"gone peer": "no wheel"},
    "notes": {"fast peer": "does less"},
}
MACHINE = {
    "date": "2026-11-21T00:00:00+00:00",
    "cpu": "a processor",
    "cores": 2,
    "memory_gib": 24.0,
    "system": "Linux 6",
    "python": "3.11.7",
}
RESULTS: list[dict[str, Any]] = [{"name": "chain", "machine": MACHINE, "rows": [ROW]}]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_361_234.0, "1,360,000"), (52.14, "52.1"), (0.012345, "0.0123"), (0.0, "0"), (999.6, "1,000")],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_names_missed_bars_absent_peers_and_notes() -> None:
    text = table(RESULTS)
    assert "**missed**" in text
    assert "- missed in 'a <chain>': <= 5 ms" in text
    assert "- gone peer is absent from 'a <chain>': no wheel" in text
    assert "- fast peer: does less" in text
    assert "fast peer 5.00 (2.00x)" in text


def test_a_row_without_a_figure_of_ours_says_so() -> None:
    row = {**ROW, "ours": None, "ratios": {}, "absent": {"FlowRx": "it broke"}}
    assert "not measured" in table([{"name": "chain", "machine": MACHINE, "rows": [row]}])


def test_the_page_says_when_where_and_how_often() -> None:
    text = page(RESULTS)
    assert "a processor, 2 cores, 24.0 GiB, Linux 6, Python 3.11.7" in text
    assert "\n9 times;" in text


def test_a_mark_is_how_many_times_better_ours_is_whatever_the_unit() -> None:
    assert [(mark.peer, mark.times) for mark in marks(RESULTS)] == [("slow | peer", 4.0), ("fast peer", 0.5)]
    rate = {**ROW, "better": "higher"}
    assert marks([{"rows": [rate]}])[0].times == 0.25


def test_the_plot_is_well_formed_whatever_the_names_and_also_when_empty() -> None:
    texts = [element.text for element in ET.fromstring(svg(RESULTS)).iter() if element.tag.endswith("text")]  # noqa: S314 - our own text
    assert "a <chain>" in texts
    assert {"4.00x", "0.500x"} <= set(texts)
    ET.fromstring(svg([]))  # noqa: S314 - our own text


def test_a_new_result_takes_the_place_of_the_old_and_the_others_stay() -> None:
    old = [{"name": "startup", "run": 1}, {"name": "chain", "run": 1}]
    new = [{"name": "chain", "run": 2}]
    assert merged(old, new) == [{"name": "chain", "run": 2}, {"name": "startup", "run": 1}]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_measures_and_against_whom(name: str) -> None:
    """A bar against a contender that does not take part could never be judged."""
    declared = benchmark(name)
    assert declared.name == name
    for match in declared.matches:
        names = {contender.name for contender in match.contenders} | {"ideal"}
        assert len(names) == len(match.contenders) + 1
        for row in match.rows:
            assert {bar.against for bar in row.bars} - {None} <= names
            assert set(match.quick) <= set(match.params)
