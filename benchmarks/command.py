"""The command line of one benchmark: `python -m benchmarks.NAME [--json] [--quick] [--repeats N]`.

Owns: the arguments and the exit code.
Does not own: measuring (benchmarks.harness), the look of a table (benchmarks.report).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from benchmarks.harness import Benchmark, measure
from benchmarks.report import table


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when no bar is missed, 1 otherwise. A bar that cannot be judged is not missed."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark.name}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--quick", action="store_true", help="small work, 2 repeats: shows that it runs, not how fast"
    )
    parser.add_argument(
        "--repeats", type=int, help="rounds that count, instead of the benchmark's own number"
    )
    options = parser.parse_args(arguments)
    result = measure(benchmark, quick=options.quick, repeats=options.repeats)
    print(json.dumps(result) if options.json else table([result]))
    return 1 if any(row["met"] is False for row in result["rows"]) else 0
