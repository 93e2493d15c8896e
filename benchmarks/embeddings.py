"""Embeddings over HTTP: 200 texts, a server on loopback that takes 50 ms a request, 8 requests at a time.

Ours is a node that asks the runtime's HTTP client, one request per text; batched, the runtime fills requests
of up to 128 texts.
"""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.process import Sample
from benchmarks.summary import Bar


def seconds(sample: Sample, _: Params) -> float:
    """Wall time."""
    return sample.seconds


def cpu_s(sample: Sample, _: Params) -> float:
    """CPU time of the contender's process; the server's is not in it."""
    return sample.cpu_s


def requests(sample: Sample, _: Params) -> float:
    """Requests the server saw."""
    return sample.facts["requests"]


def ideal_s(params: Params) -> float:
    """Waves of `limit` requests."""
    return -(-params["count"] // params["limit"]) * params["delay_s"]


GRAPHBIT = Contender(
    "GraphBit",
    "benchmarks.peers.graphbit:embeddings",
    note="its client, not its engine, through the Azure configuration",
)
PARAMS = {"count": 200, "limit": 8, "delay_s": 0.05}
QUICK = {"count": 24, "delay_s": 0.01}

BENCHMARK = Benchmark(
    "embeddings",
    (
        Match(
            contenders=(
                Contender("FlowRx", "benchmarks.ours.embeddings:one_by_one", Environment.OURS),
                GRAPHBIT,
            ),
            rows=(
                Row(
                    "embeddings, 200 texts x 50 ms at 8", "s", seconds, ideal=ideal_s, bars=(Bar("<=", 1.4),)
                ),
                Row("embeddings, 200 texts x 50 ms at 8: CPU", "s", cpu_s, bars=(Bar("<=", 0.3),)),
            ),
            expected=data.vectors,
            params=PARAMS,
            quick=QUICK,
        ),
        Match(
            contenders=(Contender("FlowRx", "benchmarks.ours.embeddings:batched", Environment.OURS),),
            rows=(
                Row(
                    "embeddings, 200 texts in batches of 128: requests",
                    "requests",
                    requests,
                    bars=(Bar("==", 2),),
                ),
                Row("embeddings, 200 texts in batches of 128", "s", seconds),
            ),
            expected=data.vectors,
            params=PARAMS,
            quick={"delay_s": 0.01},
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
