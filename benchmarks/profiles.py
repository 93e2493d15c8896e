"""The four profiles on one workload: what each gives, and what it gives up for it.

A source that is faster than its node, rows of 16 KiB, a coroutine of 10 ms, a sink. Throughput and the
latency of a row (handed over by its source to written) are the run's; memory is the peak of the process.
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

BALANCED, HIGH, LOW, SMALL = "balanced", "high_throughput", "low_latency", "memory_optimized"


def p99_ms(sample: Sample, _: Params) -> float:
    """Of the time from the source to the sink."""
    return sample.facts["p99_ms"]


def peak_mib(sample: Sample, _: Params) -> float:
    """The most memory the process has had, interpreter included."""
    return sample.facts["peak_rss_mib"]


def _contender(name: str) -> Contender:
    return Contender(name, "benchmarks.ours.profiles:profile", Environment.OURS, params={"profile": name})


BENCHMARK = Benchmark(
    "profiles",
    (
        Match(
            contenders=tuple(_contender(name) for name in (BALANCED, HIGH, LOW, SMALL)),
            rows=(
                Row(
                    "profiles, source faster than its node: throughput",
                    "records/s",
                    records_per_s,
                    higher_is_better=True,
                    bars=(Bar("<=", 0.5, HIGH),),
                ),
                Row(
                    "profiles, source faster than its node: p99 latency",
                    "ms",
                    p99_ms,
                    bars=(Bar(">=", 4, LOW),),
                ),
                Row(
                    "profiles, source faster than its node: peak memory",
                    "MiB",
                    peak_mib,
                    bars=(Bar(">=", 1.3, SMALL),),
                ),
            ),
            expected=data.profile_result,
            params={"records": 12_000, "row_bytes": 16_384, "delay_s": 0.01},
            quick={"records": 1_500, "row_bytes": 1_024},
            repeats=5,
            warmups=1,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
