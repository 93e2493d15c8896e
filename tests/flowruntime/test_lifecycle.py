"""The runtime of this process: configured, started, used, asked, shut down; from any thread, and again."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import flowruntime
from flowcore import Workflow, node
from flowcore.connector import Rows, Sink
from flowcore.errors import DefinitionError, LifecycleError, SinkError
from flowcore.health import Health, HealthContext
from flowcore.middleware import Middleware
from flowruntime import lifecycle
from tests.behaviour.harness import Nothing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """No test leaves a runtime, or a configuration, behind."""
    yield
    flowruntime.shutdown()
    lifecycle._process.options = {}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flow")]


@node("life.double")
def double(n: int) -> int:
    return n * 2


@node("life.thread")
async def thread(n: int) -> str:
    return threading.current_thread().name * min(n, 1)


def one(thing: Any) -> Workflow:
    wf = Workflow("one")
    wf.add(thing, id="it")
    return wf


# --- starting and ending ------------------------------------------------------------------------------


def test_run_works_without_init_and_leaves_nothing_behind() -> None:
    assert flowruntime.run(one(double), n=3).outputs["it"]["out"] == 6
    assert not flowruntime.get_system_info().initialized


def test_after_init_run_uses_the_one_runtime_and_keeps_the_workflow_warm() -> None:
    wf = one(thread)
    flowruntime.init(state_dir=None)
    names = {flowruntime.run(wf, n=n).outputs["it"]["out"] for n in range(1, 6)}
    assert names == {"flow runtime"}
    statistics = flowruntime.get_system_info().statistics
    assert statistics is not None
    assert statistics["warm_chains"] == 1
    assert statistics["requests"]["completed"] == 5


def test_init_twice_is_init_once_and_shutdown_twice_too() -> None:
    flowruntime.init(state_dir=None, max_parallel=3)
    first = lifecycle._process.started
    flowruntime.init()
    flowruntime.init(max_parallel=3)
    assert lifecycle._process.started is first
    flowruntime.shutdown()
    flowruntime.shutdown()
    assert lifecycle._process.started is None


def test_after_a_shutdown_it_can_be_started_again_as_configured() -> None:
    flowruntime.init(state_dir=None, max_parallel=3)
    flowruntime.shutdown()
    assert flowruntime.run(one(double), n=1).ok
    flowruntime.init()
    statistics = flowruntime.get_system_info().statistics
    assert statistics is not None
    assert statistics["limits"]["runtime:*"]["capacity"] == 3


def test_many_threads_may_start_it_at_once_and_share_one() -> None:
    wf = one(thread)

    def work(_: int) -> str:
        flowruntime.init(state_dir=None)
        return flowruntime.run(wf, n=1).outputs["it"]["out"]

    with ThreadPoolExecutor(16) as pool:
        names = set(pool.map(work, range(64)))
    assert names == {"flow runtime"}
    assert sum(each.name == "flow runtime" for each in threading.enumerate()) == 1


def test_a_shutdown_ends_calls_that_are_at_work_truthfully() -> None:
    began = threading.Event()

    @node("life.forever")
    async def forever(n: int) -> int:
        began.set()
        await asyncio.Event().wait()
        return n

    flowruntime.init(state_dir=None)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(flowruntime.run, one(forever), n=1)
        assert began.wait(10)
        flowruntime.shutdown()
        result = work.result(10)
    assert result.state.name == "cancelled"


def test_a_sink_that_cannot_be_made_final_is_told_by_shutdown() -> None:
    class Stuck(Sink[Nothing, Any], type="life.stuck"):
        async def write(self, batch: Rows[Any]) -> dict[int, Exception]:
            return {}

        async def finish(self) -> None:
            raise SinkError("the disk is full")

    wf = Workflow("sinks")
    wf.connect(wf.add(double, id="it"), wf.add(Stuck, id="k"))
    flowruntime.init(state_dir=None)
    assert flowruntime.run(wf, n=1).ok
    with pytest.raises(SinkError, match="the disk is full"):
        flowruntime.shutdown()
    assert not flowruntime.get_system_info().initialized


def test_a_call_from_inside_the_runtime_is_refused_instead_of_waiting_for_itself() -> None:
    wf = one(double)

    @node("life.inside")
    async def inside(n: int) -> Any:
        return flowruntime.run(wf, n=n).outputs["it"]["out"]

    @node("life.suicide")
    async def suicide(n: int) -> None:
        flowruntime.shutdown(timeout=timedelta(seconds=n))

    flowruntime.init(state_dir=None)
    for thing, words in ((inside, "would wait for itself"), (suicide, "cannot shut the runtime down")):
        result = flowruntime.run(one(thing), n=1)
        assert isinstance(result.cause, LifecycleError)
        assert words in str(result.cause)


def test_an_interrupted_call_cancels_its_work() -> None:
    began, cancelled = threading.Event(), threading.Event()

    @node("life.waits")
    async def waits(n: int) -> int:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return n

    flowruntime.init(state_dir=None)
    started = lifecycle._process.started
    assert started is not None

    def interrupted(future: Any) -> None:
        assert began.wait(10)
        assert not future.done()
        raise KeyboardInterrupt

    started._wait = interrupted
    with pytest.raises(KeyboardInterrupt):
        flowruntime.run(one(waits), n=1)
    assert cancelled.wait(10)


async def test_run_works_where_a_loop_is_running_as_in_a_notebook() -> None:
    assert flowruntime.run(one(double), n=3).ok
    flowruntime.init(state_dir=None)
    assert flowruntime.run(one(double), n=3).ok
    assert flowruntime.health_check().ok


def test_nodes_given_for_one_call_are_known_to_it_alone() -> None:
    wf = Workflow("named")
    wf.add("life.double", id="it")
    flowruntime.init(state_dir=None)
    assert flowruntime.run(wf, nodes=[double], n=3).outputs["it"]["out"] == 6
    with pytest.raises(ValueError, match=r"life\.double"):
        flowruntime.run(wf, n=3)


def test_a_forked_child_starts_without_a_runtime_and_may_start_its_own() -> None:
    program = """
import os, warnings
warnings.simplefilter("ignore")
import flowruntime
from flowcore import Workflow, node

@node("life.double")
def double(n: int) -> int:
    return n * 2

wf = Workflow("one"); wf.add(double, id="it")
flowruntime.init(state_dir=None)
assert flowruntime.run(wf, n=1).ok
child = os.fork()
if child == 0:
    assert not flowruntime.get_system_info().initialized
    assert flowruntime.run(wf, n=2).outputs["it"]["out"] == 4
    flowruntime.init()
    assert flowruntime.run(wf, n=3).outputs["it"]["out"] == 6
    flowruntime.shutdown()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert flowruntime.run(wf, n=1).ok
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=50)


def test_a_process_that_ends_without_shutdown_makes_its_sinks_final(tmp_path: Path) -> None:
    program = f"""
import flowruntime
from flowcore import Workflow, node

@node("life.double")
def double(n: int) -> int:
    return n * 2

wf = Workflow("one")
sink = wf.add("files.sink", id="k", config={{"path": {str(tmp_path / "out.jsonl")!r}, "mode": "atomic"}})
wf.connect(wf.add(double, id="it"), sink)
flowruntime.init(state_dir=None)
assert flowruntime.run(wf, n=21).ok
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=50)
    assert (tmp_path / "out.jsonl").read_text() == "42\n"


# --- configuring --------------------------------------------------------------------------------------


def test_what_is_configured_holds_for_run_with_and_without_init() -> None:
    seen: list[str] = []

    class Told(Middleware):
        def before_run(self, call: Any) -> None:
            seen.append(call.mode)

    flowruntime.configure_runtime(state_dir=None)
    flowruntime.configure_runtime(middleware=(each for each in [Told()]))
    flowruntime.run(one(double), n=1)
    flowruntime.run(one(double), n=1)
    flowruntime.init()
    flowruntime.run(one(double), n=1)
    assert seen == ["request"] * 3


def test_configuring_after_the_start_is_refused_and_names_what_would_change() -> None:
    flowruntime.init(state_dir=None, max_parallel=3)
    flowruntime.configure_runtime(max_parallel=3)
    with pytest.raises(LifecycleError, match=r"\(max_parallel would change\).*shutdown\(\) first"):
        flowruntime.configure_runtime(max_parallel=4, state_dir=None)
    with pytest.raises(LifecycleError, match="max_parallel would change"):
        flowruntime.init(max_parallel=5)
    with pytest.raises(LifecycleError, match="debug=False"):
        flowruntime.init(debug=True)
    flowruntime.shutdown()
    flowruntime.init(max_parallel=4)
    assert flowruntime.get_system_info().options["max_parallel"] == 4


def test_an_option_nobody_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(DefinitionError, match=r"no runtime option 'max_paralel'; did you mean"):
        flowruntime.configure_runtime(max_paralel=4)  # type: ignore[call-arg] - wrong on purpose
    with pytest.raises(DefinitionError, match="no runtime option"):
        flowruntime.init(max_paralel=4)  # type: ignore[call-arg] - wrong on purpose
    assert not flowruntime.get_system_info().initialized


def test_an_option_whose_value_cannot_be_used_raises_from_init_and_nothing_is_started() -> None:
    with pytest.raises(DefinitionError, match="no profile 'fast'"):
        flowruntime.init(profile="fast")  # type: ignore[arg-type] - wrong on purpose
    assert not flowruntime.get_system_info().initialized
    flowruntime.init(profile="low_latency", state_dir=None)
    assert flowruntime.run(one(double), n=1).ok


def test_every_keyword_of_flow_runtime_that_makes_sense_for_a_process_is_an_option() -> None:
    """`clock` is for tests, which make a FlowRuntime of their own."""
    import inspect

    keywords = set(inspect.signature(flowruntime.FlowRuntime).parameters) - {"clock"}
    assert set(lifecycle._KNOWN) == keywords


def test_tracing_gives_metrics_to_opentelemetry_and_without_it_nothing_is_given() -> None:
    for tracing in (False, True):
        flowruntime.init(tracing=tracing, state_dir=None)
        started = lifecycle._process.started
        assert started is not None
        assert (started.runtime._equipment._stop_export is not None) is tracing
        flowruntime.shutdown()


def test_debug_turns_asyncios_debug_mode_on_and_log_level_is_set() -> None:
    import logging

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        flowruntime.init(debug=True, state_dir=None)
        started = lifecycle._process.started
        assert started is not None
        assert started.loop.get_debug()
        assert root.level == logging.DEBUG
    finally:
        import structlog

        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()


# --- what it says of itself ---------------------------------------------------------------------------


def test_the_version_is_that_of_the_installed_distribution() -> None:
    from importlib.metadata import version

    assert flowruntime.version() == version("flowrx")


def test_system_information_is_true() -> None:
    before = flowruntime.get_system_info()
    assert before.flowrx == flowruntime.version()
    assert before.python == platform.python_version()
    assert before.pid == os.getpid()
    assert before.threads == threading.active_count()
    assert (before.loop, before.uptime_s, before.statistics) == (None, None, None)
    assert before.packages["msgspec"]
    assert "flowrx" not in before.packages
    flowruntime.init(state_dir=None, secrets={"KEY": "hush"}, profile="balanced")
    after = flowruntime.get_system_info()
    assert after.initialized
    assert after.loop == f"asyncio.unix_events.{asyncio.SelectorEventLoop.__name__}"
    assert after.uptime_s is not None
    assert 0 <= after.uptime_s < 60
    assert after.threads > before.threads
    assert after.options == {"state_dir": None, "profile": "balanced"}
    assert "hush" not in repr(after)


def test_the_health_of_the_process_can_be_asked_with_and_without_init() -> None:
    assert [check.name for check in flowruntime.health_check().checks] == ["memory", "event loop"]

    class Database(Sink[Nothing, Any], type="life.asked"):
        async def write(self, batch: Rows[Any]) -> dict[int, Exception]:
            return {}

        async def health(self, ctx: HealthContext) -> Health:
            await ctx.sleep(timedelta(0))
            return Health("failing", "the database is away")

    wf = Workflow("sinks")
    wf.connect(wf.add(double, id="it"), wf.add(Database, id="db"))
    flowruntime.init(state_dir=None)
    assert flowruntime.run(wf, n=1).ok
    report = flowruntime.health_check()
    assert report.state == "failing"
    assert [(check.name, check.detail) for check in report.of("failing")] == [
        ("sinks/db", "the database is away")
    ]
