"""Offloading: a process that dies fails its row alone; no cancelled row and no killed parent leaves one.

These are real processes and threads: tests wait for what these do, never for time.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import ContractError, DefinitionError, HttpUnavailableError
from flowruntime.flowcontrol.offload import Offloader, WorkerProcessDiedError
from flowruntime.flowcontrol.threads import Threads
from tests.flowruntime.flowcontrol import offloaded

PATIENCE_S = 20


@asynccontextmanager
async def offloader(function: Callable[..., Any], workers: int = 1) -> AsyncGenerator[Offloader]:
    made = Offloader(function, "process", workers, name="n")
    try:
        yield made
    finally:
        await made.aclose()


def pipe(folder: Path, name: str) -> str:
    path = folder / name
    os.mkfifo(path)
    return str(path)


async def written_to(path: str) -> str:
    """What comes through a pipe."""
    return await asyncio.to_thread(Path(path).read_text)


def ends(pid: int) -> bool:
    """Whether a process of anybody's is gone soon."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_S)[0])
    finally:
        os.close(descriptor)


# --- calls ----------------------------------------------------------------------------------------------


async def test_values_of_every_kind_cross_and_come_back() -> None:
    values = (True, 1, 1.0, None, "\ud800", b"\x00", 2**70, [float("inf")], {"a": {"b": (1, 2)}})
    async with offloader(offloaded.echo) as made:
        assert await made.run(values, {}) == list(values)
        assert await made.run((1,), {"limit": 2**70}) == [1, {"limit": 2**70}]
        assert [type(value) for value in await made.run(values, {})] == [type(value) for value in values]


async def test_a_process_serves_many_calls_one_at_a_time_and_as_many_processes_as_calls_at_once(
    tmp_path: Path,
) -> None:
    async with offloader(offloaded.pid, workers=2) as made:
        assert len({await made.run((), {}) for _ in range(5)}) == 1
    async with offloader(offloaded.read, workers=2) as made:
        paths = [pipe(tmp_path, name) for name in "ab"]
        calls = [asyncio.create_task(made.run((path,), {})) for path in paths]
        for path in reversed(paths):
            await asyncio.to_thread(Path(path).write_text, path)
        assert await asyncio.gather(*calls) == paths


async def test_an_exception_comes_back_as_itself_with_its_facts() -> None:
    async with offloader(offloaded.fail) as made:
        with pytest.raises(HttpUnavailableError, match="later") as caught:
            await made.run((), {})
    assert caught.value.facts()["retry_after_s"] == 2.5
    assert "offloaded.py" in caught.value.__notes__[0]


async def test_what_cannot_cross_fails_its_row_with_its_path_and_the_process_goes_on() -> None:
    async with offloader(offloaded.echo) as made:
        with pytest.raises(
            ContractError, match=r"'n': its input cannot cross.*at arguments\[0\].*is a object"
        ):
            await made.run((object(),), {})
        assert await made.run((1,), {}) == [1]
    async with offloader(offloaded.own) as made:
        with pytest.raises(ContractError, match=r"'n': its result cannot cross back.*offload='thread'"):
            await made.run((), {})


@pytest.mark.parametrize("function", [lambda: 1, "local"])
def test_a_function_a_process_cannot_find_is_refused_before_anything_runs(function: Any) -> None:
    def local() -> None: ...

    with pytest.raises(DefinitionError, match="cannot find"):
        Offloader(local if function == "local" else function, "process", 1, name="n")


# --- death ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"), [("kill", "killed by SIGKILL"), ("exit", "exit code 3"), ("abort", "killed by SIGABRT")]
)
async def test_a_process_that_dies_fails_its_row_alone_and_the_pool_goes_on(
    how: str, words: str, tmp_path: Path
) -> None:
    """Rows in other processes of the node are not touched; a fresh process takes its place."""
    async with offloader(offloaded.act, workers=2) as made:
        path = pipe(tmp_path, "other")
        other = asyncio.create_task(made.run(("read", path), {}))
        for _ in range(3):
            with pytest.raises(WorkerProcessDiedError, match=f"'n' died.*{words}"):
                await made.run(("die", how), {})
        assert await made.run(("echo", 1), {}) == [1]
        await asyncio.to_thread(Path(path).write_text, "alive")
        assert await other == "alive"


async def test_a_module_that_cannot_be_imported_there_fails_the_row_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with offloader(offloaded.pid) as made:
        monkeypatch.setattr(made, "_location", "tests.flowruntime.flowcontrol.nowhere:pid")
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError, match="nowhere"):
                await made.run((), {})


async def test_leaving_by_sys_exit_is_an_exception_of_the_row_and_keeps_the_process() -> None:
    async with offloader(offloaded.act) as made:
        before = await made.run(("pid",), {})
        with pytest.raises(Exception, match="leave") as caught:
            await made.run(("die", "leave"), {})
        assert "SystemExit" in str(caught.value)
        assert await made.run(("pid",), {}) == before


async def test_a_process_that_cannot_be_started_fails_the_row_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with offloader(offloaded.echo) as made:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(FileNotFoundError, match="/nowhere/python"):
                await made.run((1,), {})
        assert await made.run((1,), {}) == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_whole_group_is_the_parents_to_answer(number: int) -> None:
    """Ctrl-C drains: rows in worker processes are finished."""
    async with offloader(offloaded.pid) as made:
        worker = await made.run((), {})
        os.kill(worker, number)
        assert await made.run((), {}) == worker


# --- cancelling and closing -------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", ["waiting", "computing"])
async def test_a_cancelled_row_ends_its_process_whatever_it_is_doing(busy: str, tmp_path: Path) -> None:
    """A catastrophic regular expression holds the interpreter's lock; only a signal of the kernel ends it."""
    told = pipe(tmp_path, "told")
    async with offloader(offloaded.act) as made:
        arguments = ("tell_and_burn", told)
        if busy == "waiting":
            arguments = ("tell_and_block", told, pipe(tmp_path, "never"))
        call = asyncio.create_task(made.run(arguments, {}))
        worker = int(await written_to(told))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ends(worker)
        assert await made.run(("echo", 1), {}) == [1]


async def test_closing_ends_the_busy_at_once_and_lets_the_idle_end_by_themselves(tmp_path: Path) -> None:
    told, ended = pipe(tmp_path, "told"), tmp_path / "ended"
    made = Offloader(offloaded.act, "process", 2, name="n")
    call = asyncio.create_task(made.run(("tell_and_burn", told), {}))
    burning = int(await written_to(told))
    await made.run(("say_at_exit", str(ended)), {})
    idle = await made.run(("pid",), {})
    await made.aclose()
    with pytest.raises(WorkerProcessDiedError):
        await call
    assert idle != burning
    assert ends(idle)
    assert ends(burning)
    assert ended.read_text() == "ended"


_PARENT = """
import asyncio, sys
from flowruntime.flowcontrol.offload import Offloader
from tests.flowruntime.flowcontrol import offloaded

async def main():
    made = Offloader(offloaded.act, "process", 2, name="n")
    print(await made.run(("pid",), {}), flush=True)
    await asyncio.gather(made.run(("tell_and_burn", sys.argv[1]), {}), made.run(("pid",), {}))
    print("both", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def _started(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)


async def test_no_worker_process_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    """Neither one that waits for work nor one that computes and would not notice for hours."""
    told = pipe(tmp_path, "told")
    with _started(_PARENT, told) as parent:
        assert parent.stdout is not None
        idle = int(await asyncio.to_thread(parent.stdout.readline))
        burning = int(await written_to(told))
        parent.kill()
        assert parent.wait(PATIENCE_S) == -signal.SIGKILL
        assert ends(idle)
        assert ends(burning)


_STUCK = """
import asyncio, threading
from flowruntime.flowcontrol.offload import Offloader

async def main():
    made = Offloader(threading.Event().wait, "thread", 1, name="n")
    try:
        async with asyncio.timeout(0.01):
            await made.run((), {})
    except TimeoutError:
        print("late")
    await made.aclose()

asyncio.run(main())
"""


def test_a_thread_that_never_ends_does_not_keep_the_program_from_ending() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _STUCK], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert ran.stdout == "late\n"


# --- threads --------------------------------------------------------------------------------------------


def test_threads_are_begun_when_needed_reused_and_never_more_than_allowed() -> None:
    threads = Threads(2, "t")
    names = {threads.submit(lambda: threading.current_thread().name).result(PATIENCE_S) for _ in range(20)}
    assert names == {"t-0"}
    together = threading.Barrier(2)
    both = [threads.submit(together.wait) for _ in range(2)]
    assert {future.result(PATIENCE_S) for future in both} == {0, 1}
    go = threading.Event()
    futures = [threads.submit(go.wait) for _ in range(10)]
    assert sum(future.running() for future in futures) <= 2
    go.set()
    assert all(future.result(PATIENCE_S) for future in futures)
    threads.shutdown(wait=True)
    with pytest.raises(RuntimeError, match="'t' were told to end"):
        threads.submit(go.wait)


def test_a_call_cancelled_while_it_waits_never_runs_and_an_exception_reaches_who_asked() -> None:
    threads = Threads(1, "t")
    go, ran = threading.Event(), list[int]()
    busy = threads.submit(go.wait)
    waiting = threads.submit(lambda: ran.append(1))
    assert waiting.cancel()
    failing = threads.submit(lambda: 1 / 0)
    left = threads.submit(lambda: ran.append(2))
    threads.shutdown(wait=False, cancel_futures=True)
    go.set()
    assert busy.result(PATIENCE_S)
    assert failing.cancelled()
    assert left.cancelled()
    threads.shutdown(wait=True)
    assert ran == []
    other = Threads(1, "u")
    with pytest.raises(ZeroDivisionError):
        other.submit(lambda: 1 / 0).result(PATIENCE_S)
    assert other.submit(lambda: 3).result(PATIENCE_S) == 3
    other.shutdown(wait=True)
