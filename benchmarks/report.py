"""Results as text for people: a Markdown table and the page in `benchmarks/results/`.

Owns: how figures, verdicts and absences read.
Does not own: the figures (benchmarks.harness), the plot (benchmarks.plot).

Pure: the plain objects of `benchmarks.harness.measure` in, text out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

VERDICTS = {True: "met", False: "**missed**", None: "-"}


def number(value: float) -> str:
    """Three significant digits, thousands set apart: 1,360,000; 0.0123; 52.1."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}"


def _ours(row: Mapping[str, Any]) -> str:
    if row["ours"] is None:
        return "not measured"
    return f"{number(row['ours']['median'])} ({number(row['ours']['min'])} to {number(row['ours']['max'])})"


def _peers(row: Mapping[str, Any]) -> str:
    sides = [
        f"{name} {number(figures['median'])}"
        + (f" ({number(row['ratios'][name])}x)" if name in row["ratios"] else "")
        for name, figures in row["peers"].items()
    ]
    return "; ".join([*sides, *(f"{name}: absent" for name in row["absent"] if name not in row["peers"])])


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """One line per row; below it who is absent and why, and what the notes say."""
    lines = [
        "| work | unit | ours: median (min to max) | peers: median (ours / theirs) | bar | |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        for row in result["rows"]:
            work = f"{row['work']} ({row['better']} is better)"
            cells = (work, row["unit"], _ours(row), _peers(row), row["bar"] or "-", VERDICTS[row["met"]])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    remarks = dict.fromkeys(line for result in results for row in result["rows"] for line in _remarks(row))
    return "\n".join([*lines, *(["", *remarks] if remarks else [])])


def _remarks(row: Mapping[str, Any]) -> list[str]:
    absent = [f"- {name} is absent from '{row['work']}': {reason}" for name, reason in row["absent"].items()]
    missed = [f"- missed in '{row['work']}': {bar}" for bar in row["missed"]]
    return [*missed, *absent, *(f"- {name}: {note}" for name, note in row["notes"].items())]


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole of results.md."""
    machines = {_machine(result["machine"]) for result in results}
    dates = sorted(result["machine"]["date"] for result in results)
    repeats = sorted({row["ours"]["repeats"] for result in results for row in result["rows"] if row["ours"]})
    measured = f"Measured {dates[0]} to {dates[-1]} on {'; '.join(sorted(machines))}." if dates else ""
    return f"""# Benchmarks

Written by `make bench`; not to be edited. {measured}

Only ratios count: contenders of a row take turns in one run (A B C, A B C, ...), each in its own process,
{_words(repeats)} times; figures are medians, ratios are medians of the rounds' ratios. Every run's result is
checked before its time counts.
How each side does the work: `benchmarks/ours/`, `benchmarks/peers/`.

![How many times better ours is, per peer](ratios.svg)

{table(results)}
"""


def _words(repeats: Sequence[int]) -> str:
    return " or ".join(str(count) for count in repeats) or "0"


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}"
    )
