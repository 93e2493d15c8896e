"""Virtual time jumps, keeps its order by seed, and names what can never go on."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from flowruntime.testing.virtual import (
    DeadlockError,
    RealSleepError,
    StuckError,
    VirtualLoop,
    run_virtual,
    wall_clock,
)


def test_a_year_of_sleep_takes_no_real_time_and_the_wall_clock_follows() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        clock = wall_clock()
        began = clock()
        await asyncio.sleep(365 * 86_400)
        return loop.time(), clock() - began

    began = time.monotonic()
    assert run_virtual(main(), limit=timedelta(days=400)) == (365 * 86_400, 365 * 86_400)
    assert time.monotonic() - began < 5


def test_sleepers_wake_in_the_order_of_their_times_and_never_early() -> None:
    async def sleeper(seconds: float, woke: list[tuple[float, float]]) -> None:
        await asyncio.sleep(seconds)
        woke.append((seconds, asyncio.get_running_loop().time()))

    async def main() -> list[tuple[float, float]]:
        woke: list[tuple[float, float]] = []
        await asyncio.gather(*(sleeper(seconds, woke) for seconds in (0.3, 0.1, 1e-9, 7.7, 0.2)))
        return woke

    assert run_virtual(main()) == [(s, s) for s in (1e-9, 0.1, 0.2, 0.3, 7.7)]


async def _order(tasks: int) -> list[int]:
    done: list[int] = []

    async def step(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    await asyncio.gather(*(step(number) for number in range(tasks)))
    return done


def test_a_seed_fixes_the_order_and_seeds_differ() -> None:
    assert run_virtual(_order(8)) == list(range(8))
    orders = {tuple(run_virtual(_order(8), seed=seed)) for seed in range(20)}
    assert len(orders) > 15
    assert run_virtual(_order(8), seed=3) == run_virtual(_order(8), seed=3)


def test_callbacks_keep_their_order_under_every_seed() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        for number in range(10):
            asyncio.get_running_loop().call_soon(seen.append, number)
        await asyncio.sleep(1)
        return seen

    assert all(run_virtual(main(), seed=seed) == list(range(10)) for seed in range(10))


def test_a_deadlock_names_the_waiting_tasks_and_where() -> None:
    async def waits_for_nothing() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(waits_for_nothing(), name="the lonely one")

    with pytest.raises(DeadlockError, match=r"(?s)no timer is set.*'the lonely one'.*test_virtual\.py:\d+"):
        run_virtual(main())


def test_a_heartbeat_that_nobody_stops_is_found_at_the_limit() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - the heartbeat
            await asyncio.sleep(60)

    with pytest.raises(StuckError, match=re.escape("limit of 1:00:00")):
        run_virtual(main(), limit=timedelta(hours=1))


def test_a_real_sleep_on_the_loop_is_refused_and_in_a_thread_is_waited_for() -> None:
    async def on_the_loop() -> None:
        time.sleep(0)  # noqa: ASYNC251 - the very mistake

    async def in_a_thread() -> float:
        await asyncio.to_thread(time.sleep, 0.01)
        return asyncio.get_running_loop().time()

    with pytest.raises(RealSleepError, match=r"asyncio\.sleep"):
        run_virtual(on_the_loop())
    assert run_virtual(in_a_thread()) == 0.0


def test_time_stands_still_while_a_thread_works() -> None:
    """Else a timeout of a second would fire while a thread takes its first millisecond."""

    async def main() -> str:
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert all("asyncio" in run_virtual(main()) for _ in range(20))


def test_sockets_work() -> None:
    async def main() -> bytes:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            reading = asyncio.create_task(loop.sock_recv(right, 10))
            await asyncio.sleep(1)
            await loop.sock_sendall(left, b"here")
            return await reading
        finally:
            left.close()
            right.close()

    assert run_virtual(main()) == b"here"


def test_the_real_sleep_is_back_after_a_run_that_failed() -> None:
    real = time.sleep

    async def main() -> None:
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        run_virtual(main())
    assert time.sleep is real


def test_the_loop_is_a_loop_like_others() -> None:
    loop = VirtualLoop(seed=1)
    try:
        assert loop.run_until_complete(asyncio.sleep(5, "done")) == "done"
        assert loop.time() == 5
    finally:
        loop.close()


PLUGIN_TESTS = """
import asyncio
import pytest
from datetime import timedelta
from flowruntime.testing import VirtualLoop

async def test_with_the_fixture(virtual, tmp_path):
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
    await asyncio.sleep(3600)
    assert virtual.elapsed_s == 3600 and tmp_path.exists()

@pytest.mark.virtual(seed=5)
async def test_with_the_marker():
    assert asyncio.get_running_loop().seed == 5
    await asyncio.sleep(3600)

@pytest.mark.virtual(seed=7)
async def test_with_both(virtual):
    assert virtual.seed == 7

@pytest.mark.parametrize("seconds", [1, 2])
async def test_parametrised(virtual, seconds):
    await virtual.sleep(seconds)
    assert virtual.elapsed_s == seconds

def test_that_is_no_coroutine(virtual):
    assert virtual.run(asyncio.sleep(9, "woke")) == "woke"

class TestInAClass:
    async def test_method(self, virtual):
        await asyncio.sleep(5)

async def test_that_leaves_a_task(virtual):
    virtual.left = asyncio.create_task(asyncio.sleep(99), name="left over")

async def test_that_hangs(virtual):
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize("options", [["-p", "no:asyncio"], ["-o", "asyncio_mode=auto"], []])
def test_the_plugin_serves_users_of_any_asyncio_plugin_and_of_none(
    tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["flowruntime.testing.pytest_plugin"]\n')
    (tmp_path / "test_users.py").write_text(PLUGIN_TESTS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", *options],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "7 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "2 failed" in ran.stdout
    assert "left 1 tasks running: left over" in ran.stdout
    assert "DeadlockError" in ran.stdout


def test_importing_the_toolkit_does_not_import_pytest() -> None:
    code = (
        "import flowruntime.testing, sys; assert 'pytest' not in sys.modules and '_pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
