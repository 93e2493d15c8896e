"""The engine against the reference: random workflows, as requests and as streams, in any order of tasks."""

from __future__ import annotations

import asyncio
import random

import pytest

from flowruntime.runtime import FlowRuntime
from flowruntime.testing.virtual import run_virtual, wall_clock
from tests.differential.case import Case
from tests.differential.check import request_faults, stream_faults
from tests.differential.generate import is_valid, random_case, smaller
from tests.differential.palette import Outside

_QUICK = range(150)
_NARROW = range(300, 390)
_LONG = range(1_000_000, 1_005_000)
_CHUNKS = 10


def faults_of(case: Case, seed: int) -> list[str]:
    """Everything the engine does otherwise than the reference, both ways of running; a hang is one, too."""

    async def both() -> list[str]:
        runtime = FlowRuntime(watchdog=None, state_dir=None, clock=wall_clock(), seed=seed)
        async with runtime, asyncio.timeout(1_000):
            requests = await request_faults(case, runtime)
            streams = await stream_faults(case, runtime, Outside(chance=random.Random(seed)))
        return [f"request: {fault}" for fault in requests] + [f"stream: {fault}" for fault in streams]

    try:
        return run_virtual(both(), seed=seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the case shows it and is to be made smaller
        return [f"{type(error).__name__}: {error}"]


def check(seed: int, **settings: int) -> None:
    """Fail with the smallest case that shows what this seed's case shows."""
    case = random_case(seed, most_records=12 if settings else 6)
    case = case._replace(settings=tuple({**dict(case.settings), **settings}.items()))
    if not faults_of(case, seed):
        return
    case = smaller(case, lambda smaller_case: bool(faults_of(smaller_case, seed)))
    shown = "\n  ".join(faults_of(case, seed))
    pytest.fail(
        f"seed {seed}: the engine and the reference differ\n  {shown}\nReproduce with:\n"
        "from tests.differential.case import Case, Conn, NodeDecl\n"
        "from tests.differential.test_differential import faults_of\n"
        f"print(faults_of({case!r}, {seed}))"
    )


@pytest.mark.parametrize("seed", _QUICK)
def test_random_workflows_do_what_the_reference_says(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("seed", _NARROW)
def test_random_workflows_do_the_same_when_hardly_any_byte_may_be_in_flight(seed: int) -> None:
    """While bytes are overdrawn only the oldest record is worked on, and what holds it up: it drains."""
    check(seed, max_bytes=(1, 60, 300)[seed % 3])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_five_thousand_random_workflows_do_what_the_reference_says(chunk: int) -> None:
    for seed in _LONG[chunk::_CHUNKS]:
        check(seed)
        if seed % 5 == 0:
            check(seed, max_bytes=(1, 60, 300)[seed % 3])


def test_the_same_seed_gives_the_same_case() -> None:
    assert random_case(7) == random_case(7)


def test_random_cases_meet_every_kind_of_node_and_connection() -> None:
    """A generator that never makes a join, a merge or an error port tests nothing of them."""
    cases = [random_case(seed) for seed in range(400)]
    assert all(is_valid(case) for case in cases)
    kinds = {node.kind for case in cases for node in case.nodes}
    assert {"many", "slow_many", "collect", "collect_any", "two", "gather", "lingering", "by_key"} <= kinds
    conns = [conn for case in cases for conn in case.conns]
    assert {conn.kind for conn in conns} == {"data", "control", "conditional", "error"}
    assert any(conn.otherwise for conn in conns)
    assert any(not conn.when_error for conn in conns)
