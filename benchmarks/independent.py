"""64 nodes with no edge between them, 200 ms each: the time at a limit of 64, the peak at a limit of 8."""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.fan_out import ms
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.peers import graphbit_expected
from benchmarks.process import Sample
from benchmarks.summary import Bar


def peak(sample: Sample, _: Params) -> float:
    """Nodes at work at the same time, at most."""
    return sample.facts["peak"]


def ideal_ms(params: Params) -> float:
    """Waves of `limit` nodes."""
    return -(-params["width"] // params["limit"]) * params["delay_s"] * 1e3


CONTENDERS = (
    Contender("FlowRx", "benchmarks.ours.requests:independent", Environment.OURS),
    Contender("LangGraph", "benchmarks.peers.langgraph:independent", note="limited by max_concurrency"),
    Contender(
        "GraphBit",
        "benchmarks.peers.graphbit:independent",
        expected=graphbit_expected.independent,
        note="4 at a time, which cannot be set; the 200 ms are spent in an LLM server on loopback",
    ),
)
PARAMS = {"width": 64, "delay_s": 0.2}
QUICK = {"delay_s": 0.02}

BENCHMARK = Benchmark(
    "independent",
    (
        Match(
            contenders=CONTENDERS,
            rows=(
                Row(
                    "64 independent nodes x 200 ms at limit 64",
                    "ms",
                    ms,
                    ideal=ideal_ms,
                    bars=(Bar("<=", 220),),
                ),
            ),
            expected=data.independent_result,
            params={**PARAMS, "limit": 64},
            quick=QUICK,
            warmups=1,
        ),
        Match(
            contenders=CONTENDERS,
            rows=(
                Row(
                    "64 independent nodes x 200 ms at limit 8: peak",
                    "nodes at once",
                    peak,
                    bars=(Bar("==", 8),),
                ),
                Row("64 independent nodes x 200 ms at limit 8", "ms", ms, ideal=ideal_ms),
            ),
            expected=data.independent_result,
            params={**PARAMS, "limit": 8},
            quick=QUICK,
            repeats=5,
            warmups=1,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
