"""Contests: interleaved, checked, nobody left out in silence."""

from __future__ import annotations

import pytest

from benchmarks.environment import Environment
from benchmarks.harness import Contender, Match, Outcome, Row, contest, judge, play, row_of, schedule
from benchmarks.process import ContenderError, Sample
from benchmarks.summary import Bar
from benchmarks.worker import digest

RESULT = [1, 2, 3]


class Scripted:
    """A contender that takes the given times, gives the given results, and notes when it worked."""

    def __init__(self, name: str, log: list[str], *, results: list[object] | None = None) -> None:
        self.name = name
        self.log = log
        self.results = results
        self.runs = 0

    def run(self) -> Sample:
        result = RESULT if self.results is None else self.results[min(self.runs, len(self.results) - 1)]
        self.runs += 1
        self.log.append(self.name)
        if isinstance(result, Exception):
            raise result
        return Sample(seconds=float(self.runs), cpu_s=0.0, digest=digest(result), preview=repr(result))


def test_a_schedule_is_rounds_in_which_everyone_works_once() -> None:
    assert list(schedule(["a", "b"], 2)) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_runs_alternate_and_warm_ups_do_not_count() -> None:
    log: list[str] = []
    runners = {name: Scripted(name, log) for name in ("a", "b")}
    outcomes = contest(runners, {"a": RESULT, "b": RESULT}, repeats=3, warmups=1)
    assert log == ["a", "b"] * 4
    assert [sample.seconds for sample in outcomes["a"].samples] == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("wrong_at", [0, 2])
def test_a_wrong_result_costs_a_contender_all_its_times_whenever_it_comes(wrong_at: int) -> None:
    log: list[str] = []
    results: list[object] = [*[RESULT] * wrong_at, [1, 2, 4]]
    runners = {"right": Scripted("right", log), "wrong": Scripted("wrong", log, results=results)}
    outcomes = contest(runners, {"right": RESULT, "wrong": RESULT}, repeats=3, warmups=1)
    assert outcomes["wrong"].samples == []
    assert outcomes["wrong"].failure == "wrong result: [1, 2, 4]; expected [1, 2, 3]"
    assert len(outcomes["right"].samples) == 3
    assert log.count("wrong") == wrong_at + 1


def test_results_are_compared_as_json_so_a_missing_row_or_another_order_is_seen() -> None:
    assert digest([{"a": 1, "b": 2}]) == digest([{"b": 2, "a": 1}])
    assert len({digest(value) for value in ([1, 2], [2, 1], [1], [1.0, 2], ["1", 2])}) == 5


def test_a_contender_that_raises_is_out_with_its_reason() -> None:
    log: list[str] = []
    runners = {"a": Scripted("a", log), "b": Scripted("b", log, results=[ContenderError("it broke")])}
    outcomes = contest(runners, {"a": RESULT, "b": RESULT}, repeats=2, warmups=0)
    assert outcomes["b"].failure == "it broke"
    assert len(outcomes["a"].samples) == 2


OURS = Contender("ours", "nowhere:ours", Environment.OURS)
PEER = Contender("peer", "nowhere:peer", note="a note")
ROW = Row(
    "work",
    "records/s",
    lambda sample, params: params["records"] / sample.seconds,
    higher_is_better=True,
    bars=(Bar(">=", 2, "peer"), Bar(">=", 0.9, "ideal")),
    ideal=lambda _: 100.0,
)


def samples(*seconds: float) -> Outcome:
    return Outcome([Sample(value, 0.0, "", "") for value in seconds])


def test_a_row_says_ours_theirs_their_ratio_and_whether_the_bar_is_met() -> None:
    outcomes = {"ours": samples(1.0, 1.0), "peer": samples(2.0, 4.0)}
    row = row_of(ROW, (OURS, PEER), outcomes, {"records": 100})
    assert row["ours"]["median"] == 100.0
    assert row["peers"]["peer"]["max"] == 50.0
    assert row["ratios"] == {"peer": 3.0, "ideal": 1.0}
    assert row["bar"] == ">= 2x peer; >= 0.9x ideal"
    assert row["met"] is True
    assert row["notes"] == {"peer": "a note"}


def test_a_missed_bar_is_named() -> None:
    outcomes = {"ours": samples(1.0), "peer": samples(1.5)}
    row = row_of(ROW, (OURS, PEER), outcomes, {"records": 100})
    assert row["met"] is False
    assert row["missed"] == [">= 2x peer"]


@pytest.mark.parametrize(("ours", "met"), [(2.1, True), (2.3, False)])
def test_a_bar_may_be_a_margin_beyond_a_peer_in_the_rows_unit(ours: float, met: bool) -> None:
    row = Row("work", "s", lambda sample, _: sample.seconds, bars=(Bar("<=", 0.2, beyond="peer"),))
    outcomes = {"ours": samples(1.0, ours, 5.0), "peer": samples(1.0, 2.0, 4.5)}
    found = row_of(row, (OURS, PEER), outcomes, {})
    assert found["bar"] == "<= peer + 0.2 s"
    assert found["differences"]["peer"] == pytest.approx(ours - 2.0)
    assert found["met"] is met


def test_an_absent_peer_is_named_with_the_reason_and_its_bar_is_not_judged() -> None:
    outcomes = {"ours": samples(1.0), "peer": Outcome(failure="no wheel for this machine")}
    row = row_of(ROW, (OURS, PEER), outcomes, {"records": 100})
    assert row["absent"] == {"peer": "no wheel for this machine"}
    assert row["met"] is None


def test_without_a_figure_of_ours_the_bar_is_missed() -> None:
    outcomes = {"ours": Outcome(failure="it broke"), "peer": samples(1.0)}
    row = row_of(ROW, (OURS, PEER), outcomes, {"records": 100})
    assert row["ours"] is None
    assert row["met"] is False
    assert row["peers"]["peer"]["median"] == 100.0


def test_a_row_without_bars_is_neither_met_nor_missed() -> None:
    assert judge((), 1.0, {}, {}) is None


def test_a_match_runs_its_contenders_in_processes_and_refuses_one_that_does_not_do_the_work() -> None:
    """The real path, with the plain loop on both sides; the second is told to do less."""
    plain = "benchmarks.peers.plain:chain"
    match = Match(
        contenders=(
            Contender("ours", plain, Environment.OURS),
            Contender("less", plain, Environment.OURS, params={"records": 500}, expected=expected),
            Contender("missing", "benchmarks.peers.plain:nothing", Environment.OURS),
        ),
        rows=(Row("chain", "s", lambda sample, _: sample.seconds),),
        expected=expected,
        params={"records": 1_000},
        quick={},
    )
    (row,) = play(match, quick=True)
    assert row["ours"]["repeats"] == 2
    assert row["absent"]["less"].startswith("wrong result: [")
    assert "nothing" in row["absent"]["missing"]


def expected(**_: object) -> object:
    from benchmarks import data

    return data.chain_result(1_000)
