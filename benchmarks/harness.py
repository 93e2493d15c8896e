"""Side by side in one run: a process per contender, runs interleaved, wrong results refused.

Owns: the declaration of a benchmark (`Benchmark`, `Match`, `Row`, `Contender`), the schedule, the equality
check, and the object `python -m benchmarks.NAME --json` prints.
Does not own: timing (benchmarks.worker), arithmetic (benchmarks.summary), tables and plots
(benchmarks.report).

Always holds: a figure enters a row only when the run that gave it had the expected result; a contender that
cannot be installed, does not start or gives another result is named with the reason and has no figures; only
one contender works at a time; a bar that cannot be judged is neither met nor missed (`null`).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from benchmarks.environment import Environment, python_of, unavailable
from benchmarks.process import ContenderError, Sample, WorkerProcess
from benchmarks.summary import Bar, paired_differences, paired_ratios, summarize
from benchmarks.worker import digest

Params = Mapping[str, Any]

REPEATS = 9


@dataclass(frozen=True)
class Contender:
    """One side of a match: a workload `module:function` and the environment it lives in."""

    name: str
    work: str
    env: Environment = Environment.PEERS
    params: Params = field(default_factory=dict[str, Any])
    """Added to the match's parameters."""
    expected: Callable[..., object] | None = None
    """For a peer whose result cannot have the common form; called with all its parameters."""
    note: str = ""
    """What a reader must know to judge the figures."""


@dataclass(frozen=True)
class Row:
    """One figure of a match: how it is read off a run, and what is promised of it."""

    work: str
    unit: str
    figure: Callable[[Sample, Params], float]
    higher_is_better: bool = False
    bars: tuple[Bar, ...] = ()
    ideal: Callable[[Params], float] | None = None
    """What arithmetic allows at best; shown as a contender named `ideal`."""
    only: tuple[str, ...] | None = None
    """Peers shown in this row; None for all."""


@dataclass(frozen=True)
class Match:
    """Contenders that do the same work in one interleaved run; the first is ours."""

    contenders: tuple[Contender, ...]
    rows: tuple[Row, ...]
    expected: Callable[..., object]
    params: Params
    quick: Params
    """What of `params` a smoke run replaces."""
    repeats: int = REPEATS
    warmups: int = 2


@dataclass(frozen=True)
class Benchmark:
    """What one file measures."""

    name: str
    matches: tuple[Match, ...]


class Runner(Protocol):
    """A started contender."""

    def run(self) -> Sample:
        """One run; raises ContenderError."""
        ...


class WrongResultError(ContenderError):
    """A contender did something else than the work, so its time means nothing."""


@dataclass
class Outcome:
    """What a match came to for one contender: its samples in order, or why it has none."""

    samples: list[Sample] = field(default_factory=list[Sample])
    failure: str | None = None


def schedule(names: Sequence[str], repeats: int) -> Iterator[tuple[int, str]]:
    """Rounds in which everyone works once: A B C, A B C, ..."""
    for number in range(repeats):
        for name in names:
            yield number, name


def check(sample: Sample, expected_digest: str, expected_preview: str) -> None:
    """Refuse a run with another result than the expected one.

    Raises:
        WrongResultError: with the beginning of both results.
    """
    if sample.digest != expected_digest:
        message = f"wrong result: {sample.preview}; expected {expected_preview}"
        raise WrongResultError(message)


def contest(
    runners: Mapping[str, Runner], expected: Mapping[str, object], *, repeats: int, warmups: int
) -> dict[str, Outcome]:
    """Run all in turn, `warmups` + `repeats` rounds; who fails once is out, with the reason; others go on.

    Args:
        runners: the started contenders by name; the order of a round.
        expected: the result each must give, every time.
        repeats: rounds that count.
        warmups: rounds before them, checked too.
    """
    outcomes = {name: Outcome() for name in runners}
    digests = {name: digest(expected[name]) for name in runners}
    for number, name in schedule(list(runners), warmups + repeats):
        outcome = outcomes[name]
        if outcome.failure is not None:
            continue
        try:
            sample = runners[name].run()
            check(sample, digests[name], _preview(expected[name]))
        except ContenderError as error:
            outcome.failure = str(error)
            outcome.samples.clear()
            continue
        if number >= warmups:
            outcome.samples.append(sample)
    return outcomes


def _preview(result: object) -> str:
    text = repr(result)
    return text if len(text) <= 300 else text[:300] + "..."


def play(match: Match, *, quick: bool, repeats: int | None = None) -> list[dict[str, Any]]:
    """The rows of a match, measured; the form is that of `python -m benchmarks.NAME --json`."""
    params = {**match.params, **(match.quick if quick else {})}
    rounds = repeats or (2 if quick else match.repeats)
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        runners: dict[str, WorkerProcess] = {}
        for contender in match.contenders:
            try:
                worker = _worker(contender, {**params, **contender.params})
                runners[contender.name] = stack.enter_context(worker)
            except ContenderError as error:
                outcomes[contender.name] = Outcome(failure=str(error))
        expected = {
            contender.name: (contender.expected or match.expected)(**{**params, **contender.params})
            for contender in match.contenders
        }
        outcomes |= contest(runners, expected, repeats=rounds, warmups=1 if quick else match.warmups)
    rows = [row_of(row, match.contenders, outcomes, params) for row in match.rows]
    return [unjudged(row) for row in rows] if quick else rows


def unjudged(row: Mapping[str, Any]) -> dict[str, Any]:
    """A smoke run's row: its figures prove nothing, so no bar is met or missed unless we failed to run."""
    return {**row, "met": None if row["ours"] else False, "missed": []}


def _worker(contender: Contender, params: Params) -> WorkerProcess:
    if reason := unavailable(contender.env, contender.name):
        raise ContenderError(reason)
    return WorkerProcess(python_of(contender.env), contender.work, params)


def row_of(
    row: Row, contenders: Sequence[Contender], outcomes: Mapping[str, Outcome], params: Params
) -> dict[str, Any]:
    """One row as plain data."""
    ours, *peers = [
        side for side in contenders if row.only is None or side is contenders[0] or side.name in row.only
    ]
    figures = {
        side.name: [row.figure(sample, {**params, **side.params}) for sample in outcomes[side.name].samples]
        for side in (ours, *peers)
        if outcomes[side.name].failure is None
    }
    if row.ideal is not None and ours.name in figures:
        figures["ideal"] = [row.ideal(params)] * len(figures[ours.name])
    mine = figures.pop(ours.name, None)
    ratios = {name: paired_ratios(mine, theirs) for name, theirs in figures.items()} if mine else {}
    medians = {name: summarize(ratio).median for name, ratio in ratios.items()}
    differences = (
        {name: summarize(paired_differences(mine, theirs)).median for name, theirs in figures.items()}
        if mine
        else {}
    )
    our_median = summarize(mine).median if mine else None

    def judged(*bars: Bar) -> bool | None:
        return judge(bars, our_median, medians, differences)

    return {
        "work": row.work,
        "unit": row.unit,
        "better": "higher" if row.higher_is_better else "lower",
        "params": dict(params),
        "ours": asdict(summarize(mine)) if mine else None,
        "peers": {name: asdict(summarize(theirs)) for name, theirs in figures.items()},
        "ratios": medians,
        "differences": differences,
        "ratio_quartiles": {name: summarize(ratio).quartiles for name, ratio in ratios.items()},
        "bar": "; ".join(bar.text(row.unit) for bar in row.bars) or None,
        "met": judged(*row.bars),
        "missed": [bar.text(row.unit) for bar in row.bars if judged(bar) is False],
        "absent": {
            side.name: outcomes[side.name].failure
            for side in (ours, *peers)
            if side.name in outcomes and outcomes[side.name].failure
        },
        "notes": {side.name: side.note for side in (ours, *peers) if side.note},
    }


def judge(
    bars: Sequence[Bar],
    our_median: float | None,
    ratios: Mapping[str, float],
    differences: Mapping[str, float],
) -> bool | None:
    """Whether all bars hold; without a figure of ours none does.

    None when there is no bar, or when one waits for a peer that is absent and the others hold.

    Args:
        bars: of the row.
        our_median: None when we were not measured.
        ratios: ours over theirs, by peer.
        differences: ours less theirs, by peer.
    """
    verdicts: list[bool | None] = []
    for bar in bars:
        figure = _figure(bar, our_median, ratios, differences)
        verdicts.append(bar.holds(figure) if figure is not None else False if our_median is None else None)
    if False in verdicts:
        return False
    return None if None in verdicts or not verdicts else True


def _figure(
    bar: Bar, our_median: float | None, ratios: Mapping[str, float], differences: Mapping[str, float]
) -> float | None:
    """What a bar is about; None when it is not there."""
    if bar.beyond is not None:
        return differences.get(bar.beyond)
    return our_median if bar.against is None else ratios.get(bar.against)


def machine() -> dict[str, Any]:
    """What the figures were taken on, and when."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "flowrx": _version("flowrx"),
    }


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(benchmark: Benchmark, *, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """All rows of a benchmark as one plain object."""
    facts = machine()
    rows: list[dict[str, Any]] = []
    for match in benchmark.matches:
        sys.stderr.write(f"{benchmark.name}: {', '.join(contender.name for contender in match.contenders)}\n")
        rows += play(match, quick=quick, repeats=repeats)
    return {"name": benchmark.name, "machine": facts, "quick": quick, "rows": rows}
