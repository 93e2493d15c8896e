"""An async stage: a coroutine that waits, 64 in flight x 50 ms and 2,000 in flight x 1 s.

Against the ideal (records x wait / limit), a pool of asyncio tasks, Pathway, and LangGraph's `abatch`.
"""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.chain import records_per_s
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.process import Sample
from benchmarks.summary import Bar


def ideal(params: Params) -> float:
    """Records per second when every place in the stage is always taken."""
    return params["limit"] / params["delay_s"]


def cpu_us_per_record(sample: Sample, params: Params) -> float:
    """CPU time of the whole process."""
    return sample.cpu_s / params["records"] * 1e6


OURS = Contender(
    "FlowRx", "benchmarks.ours.stages:async_stage", Environment.OURS, note="results in input order"
)
POOL = Contender("asyncio task pool", "benchmarks.peers.plain:async_stage", Environment.OURS)
PATHWAY = Contender(
    "Pathway", "benchmarks.peers.pathway:async_stage", note="without the start and end of its engine"
)
LANGGRAPH = Contender("LangGraph abatch", "benchmarks.peers.langgraph:async_stage")

BENCHMARK = Benchmark(
    "async_stage",
    (
        Match(
            contenders=(OURS, POOL, PATHWAY),
            rows=(
                Row(
                    "async stage, 64 in flight x 50 ms",
                    "records/s",
                    records_per_s,
                    higher_is_better=True,
                    ideal=ideal,
                    bars=(Bar(">=", 0.96, "ideal"),),
                ),
                Row(
                    "async stage, 64 in flight x 50 ms: CPU",
                    "us/record",
                    cpu_us_per_record,
                    bars=(Bar("<=", 60),),
                ),
            ),
            expected=data.async_stage_result,
            params={"records": 3_840, "limit": 64, "delay_s": 0.05},
            quick={"records": 256},
            warmups=1,
        ),
        Match(
            contenders=(OURS, POOL, LANGGRAPH),
            rows=(
                Row(
                    "async stage, 2,000 in flight x 1 s",
                    "records/s",
                    records_per_s,
                    higher_is_better=True,
                    ideal=ideal,
                    bars=(Bar(">=", 0.95, "ideal"),),
                ),
            ),
            expected=data.async_stage_result,
            params={"records": 10_000, "limit": 2_000, "delay_s": 1.0},
            quick={"records": 400, "limit": 200, "delay_s": 0.1},
            repeats=3,
            warmups=1,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
