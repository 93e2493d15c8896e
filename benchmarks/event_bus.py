"""The event bus: a publish nobody listens to, and what a subscriber that never reads costs everyone else."""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.process import Sample
from benchmarks.request import us_per_node
from benchmarks.summary import Bar


def us_per_publish(sample: Sample, params: Params) -> float:
    """Time of one publish; with subscribers, of their reading too."""
    return sample.seconds / params["events"] * 1e6


def published(events: int, **_: object) -> int:
    """Every event is published, and each reading subscriber gets or misses exactly as many."""
    return events


def _ours(name: str, work: str, **params: object) -> Contender:
    return Contender(name, f"benchmarks.ours.event_bus:{work}", Environment.OURS, params=params)


def _requests(name: str, *, stuck: int) -> Contender:
    return Contender(
        name, "benchmarks.ours.requests:dag_of_functions", Environment.OURS, params={"stuck": stuck}
    )


BENCHMARK = Benchmark(
    "event_bus",
    (
        Match(
            contenders=(_ours("FlowRx", "unheard"),),
            rows=(Row("publish with no subscriber", "us/publish", us_per_publish, bars=(Bar("<=", 1),)),),
            expected=published,
            params={"events": 200_000},
            quick={"events": 5_000},
        ),
        Match(
            contenders=(
                _ours("FlowRx, 7 reading, 1 stuck", "heard", reading=7, stuck=1),
                _ours("FlowRx, 8 reading", "heard", reading=8, stuck=0),
                _ours("FlowRx, 7 reading", "heard", reading=7, stuck=0),
            ),
            rows=(
                Row(
                    "publish with a stuck subscriber",
                    "us/publish",
                    us_per_publish,
                    bars=(Bar("<=", 1.05, "FlowRx, 8 reading"),),
                ),
            ),
            expected=published,
            params={"events": 20_000},
            quick={"events": 1_000},
        ),
        Match(
            contenders=(
                _requests("FlowRx, 1 reading, 1 stuck", stuck=1),
                _requests("FlowRx, 1 reading", stuck=0),
            ),
            rows=(
                Row(
                    "request through a 10-node DAG with a stuck subscriber",
                    "us/node",
                    us_per_node,
                    bars=(Bar("<=", 1.05, "FlowRx, 1 reading"),),
                ),
            ),
            expected=data.dag_result,
            params={"requests": 200},
            quick={"requests": 10},
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
