"""One node, 500 nodes after it, one node after them all."""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.peers import graphbit_expected
from benchmarks.process import Sample
from benchmarks.summary import Bar


def ms(sample: Sample, _: Params) -> float:
    """Time of the whole request."""
    return sample.seconds * 1e3


CONTENDERS = (
    Contender("FlowRx", "benchmarks.ours.requests:fan_out", Environment.OURS, note="coroutines, events off"),
    Contender("LangGraph", "benchmarks.peers.langgraph:fan_out", note="a static graph, ainvoke"),
    Contender(
        "GraphBit",
        "benchmarks.peers.graphbit:fan_out",
        expected=graphbit_expected.fan_out,
        note="each node is an agent that calls an LLM server on loopback",
    ),
)

BENCHMARK = Benchmark(
    "fan_out",
    (
        Match(
            contenders=CONTENDERS,
            rows=(Row("fan-out to 500 nodes and back", "ms", ms, bars=(Bar("<=", 50),)),),
            expected=data.fan_out_result,
            params={"width": 500},
            quick={"width": 50},
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
