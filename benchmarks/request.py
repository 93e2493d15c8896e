"""A request through a DAG of ten nodes with events on: what the engine itself costs per node.

Two diamonds of three branches in a row; each node adds up its inputs. Ours twice: plain functions, which the
compiler fuses, and coroutines. Events on: every node's start and end reaches a subscriber that reads them.
"""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.peers import graphbit_expected
from benchmarks.process import Sample
from benchmarks.summary import Bar

GRAPHBIT_NOTE = (
    "each node is an agent that calls an LLM server on loopback; see GraphBit's client for the calls' share"
)


def us_per_node(sample: Sample, params: Params) -> float:
    """Time of a request over its ten nodes."""
    return sample.seconds / params["requests"] / len(data.DAG_PARENTS) * 1e6


def _ours(name: str, work: str, note: str = "") -> Contender:
    return Contender(name, f"benchmarks.ours.requests:{work}", Environment.OURS, note=note)


PEERS = (
    Contender("Haystack", "benchmarks.peers.haystack:dag", note="has no events; tracing off"),
    Contender(
        "LangGraph",
        "benchmarks.peers.langgraph:dag",
        params={"events": True},
        note="stream modes tasks and values, read",
    ),
    Contender("LlamaIndex Workflows", "benchmarks.peers.llama_index:dag"),
    Contender(
        "GraphBit",
        "benchmarks.peers.graphbit:dag",
        params={"requests": 3},
        expected=graphbit_expected.dag,
        note=GRAPHBIT_NOTE,
    ),
    Contender(
        "GraphBit's client",
        "benchmarks.peers.graphbit:bare_client",
        params={"requests": 3},
        expected=graphbit_expected.dag,
        note="the same calls without the engine",
    ),
)

BENCHMARK = Benchmark(
    "request",
    tuple(
        Match(
            contenders=(ours, *PEERS),
            rows=(
                Row(
                    f"request through a 10-node DAG, events on: {nodes}",
                    "us/node",
                    us_per_node,
                    bars=(Bar("<=", 30),),
                ),
            ),
            expected=data.dag_result,
            params={"requests": 100},
            quick={"requests": 10},
        )
        for nodes, ours in (
            ("functions", _ours("FlowRx", "dag_of_functions")),
            ("coroutines", _ours("FlowRx", "dag_of_coroutines")),
        )
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
