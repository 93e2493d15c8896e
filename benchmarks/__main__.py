"""All benchmarks, one after the other: `python -m benchmarks [--quick] [--repeats N] [NAME ...]`.

Owns: the list of benchmarks and the files in `benchmarks/results/`: results.json, results.md, ratios.svg.
Does not own: measuring (benchmarks.harness) or rendering (benchmarks.report).

A smoke run (`--quick`) prints its table and writes nothing: its figures mean nothing. When some benchmarks
are named, only those are measured, and their part of results.json is replaced.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, measure
from benchmarks.plot import svg
from benchmarks.report import page, table
from benchmarks.setup import set_up

NAMES = (
    "chain",
    "yaml_chain",
    "async_stage",
    "request",
    "fan_out",
    "independent",
    "sibling",
    "embeddings",
    "llm_scenarios",
    "llm_throughput",
    "event_bus",
    "profiles",
    "startup",
)
RESULTS = Path(__file__).resolve().parent / "results"


def benchmark(name: str) -> Benchmark:
    """The benchmark in the file of that name."""
    return importlib.import_module(f"benchmarks.{name}").BENCHMARK


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results in the order of `NAMES`; a new one takes the place of the old."""
    by_name = {result["name"]: result for result in (*old, *new)}
    return [by_name[name] for name in NAMES if name in by_name]


def write(results: Sequence[dict[str, Any]]) -> None:
    """The three files, from all results there are."""
    path = RESULTS / "results.json"
    old: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    everything = merged(old, results)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "results.md").write_text(page(everything), encoding="utf-8")
    (RESULTS / "ratios.svg").write_text(svg(everything), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 0 when no bar is missed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is given"
    )
    parser.add_argument("--quick", action="store_true", help="small work, 2 repeats, nothing written")
    parser.add_argument(
        "--repeats", type=int, help="rounds that count, instead of each benchmark's own number"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark is called {sorted(unknown)!r}; there are {', '.join(NAMES)}")
    set_up()
    results = [
        measure(benchmark(name), quick=options.quick, repeats=options.repeats)
        for name in NAMES
        if not options.names or name in options.names
    ]
    print(table(results))
    if not options.quick:
        write(results)
    return 1 if any(row["met"] is False for result in results for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
