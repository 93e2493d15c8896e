"""Embeddings over HTTP: 200 texts, a server on loopback that takes 50 ms a request, 8 requests at a time.

Ours is a node that asks the runtime's HTTP client, one request per text; batched, the runtime fills requests
of up to 128 texts.

Then 3,000 texts, 64 requests at a time, by the node `embedding.embed`: in batches of 128, and one by one.
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


def calls(sample: Sample, _: Params) -> float:
    """As `requests`, of a workload measured by benchmarks.calls."""
    return sample.facts["calls"]


def texts_per_s(sample: Sample, params: Params) -> float:
    """Vectors over wall time."""
    return params["count"] / sample.seconds


def cpu_us_per_text(sample: Sample, params: Params) -> float:
    """CPU time of the contender's process; the server's is not in it."""
    return sample.cpu_s / params["count"] * 1e6


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

MANY = "embeddings, 3,000 texts x 50 ms at 64, in batches of 128"
MANY_CONTENDERS = (
    Contender(
        "FlowRx", "benchmarks.ours.embeddings:embed_node", Environment.OURS, note="the node embedding.embed"
    ),
    Contender(
        "FlowRx, one by one",
        "benchmarks.ours.embeddings:embed_node",
        Environment.OURS,
        params={"max_items": 1},
        note="the same node without batches",
    ),
    Contender(
        "GraphBit in batches", "benchmarks.peers.graphbit:embeddings", note="made by hand, of 128 texts"
    ),
    Contender(
        "GraphBit, one by one",
        "benchmarks.peers.graphbit:embeddings",
        params={"max_items": 1, "count": 320},
        note="320 texts",
    ),
)

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
        Match(
            contenders=MANY_CONTENDERS,
            rows=(
                Row(
                    MANY,
                    "texts/s",
                    texts_per_s,
                    higher_is_better=True,
                    bars=(Bar(">=", 10, "FlowRx, one by one"),),
                ),
                Row(f"{MANY}: CPU", "us/text", cpu_us_per_text),
                Row(f"{MANY}: requests", "requests", calls, bars=(Bar("==", 24),), only=()),
            ),
            expected=data.vectors,
            params={"count": 3_000, "limit": 64, "delay_s": 0.05, "max_items": 128},
            quick={"count": 256, "delay_s": 0.01},
            warmups=1,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
