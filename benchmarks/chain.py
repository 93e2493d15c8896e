"""Stateless chain: map -> filter -> map -> map over small dicts, from memory to memory.

Against a plain loop (the limit), Bytewax, reactivex with one operator per function, streamz.
"""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.process import Sample
from benchmarks.summary import Bar

PEERS = "benchmarks.peers"


def records_per_s(sample: Sample, params: Params) -> float:
    """Records that entered, per second."""
    return params["records"] / sample.seconds


CONTENDERS = (
    Contender(
        "FlowRx",
        "benchmarks.ours.chain:stream",
        Environment.OURS,
        note="source and sink in memory, one run per measurement",
    ),
    Contender("plain loop", f"{PEERS}.plain:chain", Environment.OURS),
    Contender(
        "Bytewax",
        f"{PEERS}.bytewax:chain",
        note="its test source hands over 1,024 rows at once; 1 at a time is 8 times slower",
    ),
    Contender(
        "reactivex, pushed",
        f"{PEERS}.reactivex:chain",
        params={"push": True},
        note="rows pushed into a Subject, as a stream arrives",
    ),
    Contender(
        "reactivex, pulled",
        f"{PEERS}.reactivex:chain",
        params={"push": False},
        note="from_iterable over a list",
    ),
    Contender("streamz", f"{PEERS}.streamz:chain"),
)

BENCHMARK = Benchmark(
    "chain",
    (
        Match(
            contenders=CONTENDERS,
            rows=(
                Row(
                    "stateless chain: map, filter, map, map",
                    "records/s",
                    records_per_s,
                    higher_is_better=True,
                    bars=(
                        Bar(">=", 0.85, "plain loop"),
                        Bar(">=", 2.5, "Bytewax"),
                        Bar(">=", 3.5, "reactivex, pushed"),
                    ),
                ),
            ),
            expected=data.chain_result,
            params={"records": 200_000},
            quick={"records": 5_000},
        ),
        Match(
            contenders=(
                Contender("FlowRx, rt.stream", "benchmarks.ours.chain:outcomes", Environment.OURS),
                Contender("plain loop", f"{PEERS}.plain:chain", Environment.OURS),
            ),
            rows=(
                Row(
                    "the same chain by rt.stream: an outcome object per row",
                    "records/s",
                    records_per_s,
                    higher_is_better=True,
                ),
            ),
            expected=data.chain_result,
            params={"records": 200_000},
            quick={"records": 5_000},
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
