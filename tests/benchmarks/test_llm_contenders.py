"""Every contender of the benchmarks that call models does the work: a quick run gives the expected result.

Those of the peers' environment are here only where it has been made (`python -m benchmarks.setup`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import embeddings, llm_scenarios, llm_throughput
from benchmarks.environment import Environment, python_of, record
from benchmarks.harness import Contender, Match, check
from benchmarks.process import WorkerProcess
from benchmarks.worker import digest

MATCHES = (
    *llm_scenarios.BENCHMARK.matches,
    llm_throughput.BENCHMARK.matches[0],
    embeddings.BENCHMARK.matches[-1],
)
"""The matches of many calls differ in numbers only; of the embeddings the last one is through models."""


def _runs_here(contender: Contender) -> bool:
    known = record()
    return contender.env is Environment.OURS or any(
        contender.name.startswith(peer) and "version" in known[peer] for peer in known
    )


def _cases() -> Iterator[Any]:
    for match in MATCHES:
        for contender in match.contenders:
            if _runs_here(contender):
                name = f"{match.params.get('scenario', match.rows[0].work)}: {contender.name}"
                long = contender.env is Environment.PEERS
                yield pytest.param(match, contender, id=name, marks=[pytest.mark.long] if long else [])


@pytest.mark.parametrize(("match", "contender"), list(_cases()))
def test_a_contender_gives_the_expected_result(match: Match, contender: Contender) -> None:
    quick = {**match.params, **match.quick, **contender.params}
    expected = (contender.expected or match.expected)(**quick)
    with WorkerProcess(python_of(contender.env), contender.work, quick) as process:
        for _ in range(2):
            sample = process.run()
            check(sample, digest(expected), repr(expected)[:300])
            assert all(row.figure(sample, quick) > 0 for row in match.rows if row.only is None)
