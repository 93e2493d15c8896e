"""No barrier between siblings: when the child of a 50 ms node starts, beside a sibling that takes 1 s."""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.fan_out import ms
from benchmarks.harness import Benchmark, Contender, Match, Row
from benchmarks.peers import graphbit_expected
from benchmarks.summary import Bar

CONTENDERS = (
    Contender("FlowRx", "benchmarks.ours.requests:sibling", Environment.OURS),
    Contender("LangGraph", "benchmarks.peers.langgraph:sibling"),
    Contender(
        "GraphBit",
        "benchmarks.peers.graphbit:sibling",
        expected=graphbit_expected.sibling,
        note="the times are spent in an LLM server on loopback",
    ),
)

BENCHMARK = Benchmark(
    "sibling",
    (
        Match(
            contenders=CONTENDERS,
            rows=(
                Row("start of a 50 ms node's child beside a 1 s sibling", "ms", ms, bars=(Bar("<=", 60),)),
            ),
            expected=data.sibling_result,
            params={"fast_s": 0.05, "slow_s": 1.0},
            quick={"fast_s": 0.01, "slow_s": 0.1},
            warmups=1,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
