"""A pipeline in YAML against the same in Python functions: what declaring instead of coding costs.

The pipeline: a CEL condition on a connection, a template of fields, a rename, a filter. Both sides are ours;
that the interpreter of the CEL library alone, once per row, is slower than either is shown beside them.
"""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.chain import records_per_s
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Row
from benchmarks.summary import Bar

CONTENDERS = (
    Contender("FlowRx, YAML", "benchmarks.ours.yaml_chain:declared", Environment.OURS),
    Contender("FlowRx, functions", "benchmarks.ours.yaml_chain:coded", Environment.OURS),
    Contender(
        "CEL library, condition only",
        "benchmarks.ours.yaml_chain:interpreted",
        Environment.OURS,
        expected=data.large_orders,
        note="evaluates the first condition and nothing else",
    ),
)

BENCHMARK = Benchmark(
    "yaml_chain",
    (
        Match(
            contenders=CONTENDERS,
            rows=(
                Row(
                    "YAML chain: condition, template, rename, filter",
                    "records/s",
                    records_per_s,
                    higher_is_better=True,
                    bars=(Bar(">=", 0.5, "FlowRx, functions"),),
                ),
            ),
            expected=data.yaml_chain_result,
            params={"records": 50_000},
            quick={"records": 2_000},
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
