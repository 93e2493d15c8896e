"""The runtime of this process: started once, configured before, used by every synchronous call, shut down.

Owns: `init`, `configure_runtime`, `shutdown`, `run`, `health_check`, `get_system_info`, and the one runtime
they share: a `FlowRuntime` on an event loop of its own, in a thread of its own.
Does not own: what a runtime does (flowruntime.runtime), reading the machine (flowruntime.system).

Always holds: every function may be called from any thread, and again; a child process that was forked starts
without one; without `init` nothing runs in the background, and `run` makes a runtime for its call.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError, Future, wait
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, Unpack, cast

from flowcore.errors import DefinitionError, LifecycleError
from flowcore.findings import did_you_mean
from flowruntime.bridge import WorkEndedError, done_on

if TYPE_CHECKING:
    from flowcore.context import HttpClient
    from flowcore.health import HealthReport
    from flowcore.llm.provider import ProviderFactory
    from flowcore.middleware import Middleware
    from flowcore.profiles import ProfileName
    from flowcore.workflow import Workflow
    from flowruntime.execute.result import RunResult
    from flowruntime.models.pricing import Price
    from flowruntime.runtime import FlowRuntime
    from flowruntime.state.store.protocol import Store
    from flowruntime.state.store.url import StoreUrl
    from flowruntime.system import SystemInfo
    from flowruntime.telemetry.logs import LogFormat, LogLevelName

T = TypeVar("T")

CLOSING_S: Final = 30.0
"""How long `shutdown` waits for what runs to end, when nobody says."""


AT_EXIT_S: Final = 5.0
"""The same when the interpreter ends and nobody has called it."""

_LOOK_AGAIN_S: Final = 1.0
"""How often a call looks whether the thread it waits for is still there."""


class RuntimeOptions(TypedDict, total=False):
    """The keywords of `FlowRuntime`."""

    nodes: Iterable[object]
    max_parallel: int | None
    limits: Mapping[str, int] | None
    secrets: Mapping[str, str] | None
    roots: Iterable[str]
    state_dir: str | None
    store: str | StoreUrl | Store | None
    history: int
    allow_private_networks: bool
    allowed_hosts: Iterable[str]
    http: HttpClient | None
    watchdog: timedelta | None
    seed: int | None
    middleware: Iterable[Middleware]
    llm_providers: Mapping[str, ProviderFactory] | None
    prices: Mapping[str, Price] | None
    profile: ProfileName | None


_KNOWN: Final = frozenset(RuntimeOptions.__optional_keys__)
_SEVERAL: Final = frozenset({"nodes", "roots", "allowed_hosts", "middleware"})


def _shut_down() -> LifecycleError:
    return LifecycleError("the runtime of this process was shut down while this call was at work")


class _Started:
    """A runtime at work: its thread, its loop, and when it began."""

    def __init__(self, options: RuntimeOptions, *, debug: bool, tracing: bool) -> None:
        self.debug, self.tracing = debug, tracing
        self._options = options
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._grace_s = CLOSING_S
        self._closed: list[BaseException] = []
        self.loop: asyncio.AbstractEventLoop
        self.runtime: FlowRuntime
        self.thread = threading.Thread(target=self._work, name="flow runtime", daemon=True)
        self.thread.start()
        self._ready.wait()
        if self._fault is not None:
            self.thread.join()
            raise self._fault

    def _work(self) -> None:
        try:
            asyncio.run(self._serve(), debug=self.debug)
        except BaseException as error:  # noqa: BLE001 - raised where it can be caught: by init, or by shutdown
            if self._ready.is_set():
                self._closed.append(error)
            else:
                self._fault = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from flowruntime.runtime import FlowRuntime

        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with FlowRuntime(**self._options) as runtime:
            if self.tracing:
                runtime.export_telemetry()
            self.runtime = runtime
            self.began = self.loop.time()
            self._ready.set()
            await self._stop.wait()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs on the runtime's loop."""
        if threading.get_ident() == self.thread.ident:
            work.close()
            raise LifecycleError(
                "a synchronous call was made on the runtime's own event loop, inside a node or a hook; it "
                "would wait for itself: use `await` with the FlowRuntime there"
            )
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise _shut_down() from None
        try:
            self._wait(future)
            return future.result()
        except CancelledError:
            raise _shut_down() from None
        except BaseException:
            future.cancel()  # the caller was interrupted: so is its work
            raise

    def _wait(self, future: Future[Any]) -> None:
        """Until it is done; a loop that has ended answers nobody any more."""
        while not wait([future], timeout=_LOOK_AGAIN_S).done:
            if not self.thread.is_alive():
                raise _shut_down()

    def close(self, within_s: float) -> None:
        """End everything; raises what closing raised, or that it took too long."""
        if self._stop is not None:
            self.loop.call_soon_threadsafe(self._stop.set)
        self.thread.join(within_s)
        if self.thread.is_alive():
            raise LifecycleError(
                f"the runtime did not end within {within_s:g} s: something swallows its cancellation; it "
                "goes on in its thread until the process ends"
            )
        if self._closed:
            raise self._closed[0]


class _Process:
    """What this process has configured and started."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.options: RuntimeOptions = {}
        self.started: _Started | None = None
        self._hooked = False

    def end_with_the_interpreter(self) -> None:
        """Shut down before the interpreter takes down its thread pools, which closing a sink may need.

        `atexit` comes after them; the hook concurrent.futures uses itself is the only one before.
        """
        if not self._hooked:
            self._hooked = True
            import_module(
                "concurrent.futures.thread"
            )  # it has its hook now: the last one is the first called
            threading._register_atexit(_at_exit)  # type: ignore[attr-defined] # noqa: SLF001 - see above

    def forked(self) -> None:
        """In a child process: threads are not forked, and a lock may be held by one that is not there."""
        self.lock = threading.RLock()
        self.started = None


_process = _Process()
os.register_at_fork(after_in_child=_process.forked)


def configure_runtime(**options: Unpack[RuntimeOptions]) -> None:
    """Say how the runtime of this process is to be made: keywords of `FlowRuntime`, the others stay.

    For `init`, and for every `flowruntime.run`.

    Raises:
        DefinitionError: there is no such option.
        LifecycleError: it has started already, and is configured otherwise.
    """
    given = _checked(options)
    with _process.lock:
        changed = [name for name, value in given.items() if not _is_set(name, value)]
        if changed and _process.started is not None:
            raise LifecycleError(
                "the runtime of this process has started and cannot be configured any more "
                f"({_listed(changed)} would change); call flowruntime.shutdown() first"
            )
        _process.options = {**_process.options, **given}


def init(
    *,
    log_level: LogLevelName | None = None,
    log_format: LogFormat = "console",
    tracing: bool = False,
    debug: bool = False,
    **options: Unpack[RuntimeOptions],
) -> None:
    """Start the runtime of this process: `run` then keeps workflows warm from one call to the next.

    Called again with nothing new, it does nothing.

    Args:
        log_level: set log lines up, from this level on; None leaves logging to the application.
        log_format: of log lines: `console` for people, `json` for machines.
        tracing: give metrics and spans to OpenTelemetry's global providers.
        debug: asyncio's debug mode, and log level `debug`.
        options: as `configure_runtime`.

    Raises:
        DefinitionError: there is no such option, or its value cannot be used.
        LifecycleError: it has started already, otherwise.
    """
    with _process.lock:
        configure_runtime(**options)
        started = _process.started
        if started is not None:
            if (debug, tracing) != (started.debug, started.tracing):
                raise LifecycleError(
                    f"the runtime of this process has started with debug={started.debug}, "
                    f"tracing={started.tracing}; call flowruntime.shutdown() first"
                )
        else:
            _process.started = _Started(_process.options, debug=debug, tracing=tracing)
            _process.end_with_the_interpreter()
        if log_level is not None or debug:
            from flowruntime.telemetry.logs import configure_logging

            configure_logging(log_format, "debug" if debug else log_level or "info")


def shutdown(*, timeout: timedelta = timedelta(seconds=CLOSING_S)) -> None:
    """End the runtime of this process: what runs is cancelled, nodes are shut down, sinks made final.

    Does nothing when it has not started. Its configuration stays, for another `init`.

    Raises:
        LifecycleError: it did not end within `timeout`, or this is its own thread.
        SinkError: a sink could not make its rows durable.
    """
    started = _process.started
    if started is not None and threading.get_ident() == started.thread.ident:
        raise LifecycleError("a node or hook cannot shut the runtime down that runs it")
    with _process.lock:
        started, _process.started = _process.started, None
    if started is not None:
        started.close(timeout.total_seconds())


def run(workflow: Workflow, /, *, nodes: Iterable[object] = (), **inputs: Any) -> RunResult:
    """Execute a workflow synchronously, in scripts and notebooks.

        flowruntime.run(wf, text="my card was stolen")

    After `init` the runtime of this process does it and keeps the workflow warm; else one is made for this
    call, as `configure_runtime` said.

    Args:
        workflow: to be executed as one request.
        nodes: functions, classes or modules to know, for this call: one with `nodes` has a runtime of its
            own.
        inputs: of the request, as in `FlowRuntime.execute`.

    Raises:
        LifecycleError: called from inside the runtime it would use.
    """
    started = _process.started
    if started is not None and not nodes:
        return started.call(started.runtime.execute(workflow, inputs))
    options = dict(_process.options)
    if nodes:
        options["nodes"] = (*_process.options.get("nodes", ()), *nodes)

    async def once() -> RunResult:
        from flowruntime.runtime import FlowRuntime

        async with FlowRuntime(**options) as runtime:  # pyright: ignore[reportArgumentType] - RuntimeOptions, with more nodes
            return await runtime.execute(workflow, inputs)

    return _on_a_loop(once())


def call(work: Callable[[FlowRuntime], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine gives that works with the runtime of this process, started where it was not.

    Raises:
        LifecycleError: called on that runtime's own loop, or it was shut down meanwhile.
    """
    started = _running()
    return started.call(work(started.runtime))


async def call_async(work: Callable[[FlowRuntime], Coroutine[Any, Any, T]]) -> T:
    """As `call`, from any event loop: the work is done on the runtime's own.

    Who is cancelled cancels the work, and goes on when it has ended.
    """
    started = _running()
    if threading.get_ident() == started.thread.ident:
        return await work(started.runtime)
    try:
        return await done_on(started.loop, lambda: work(started.runtime))
    except WorkEndedError:
        raise _shut_down() from None


def _running() -> _Started:
    if _process.started is None:
        init()
    started = _process.started
    if started is None:
        raise _shut_down()
    return started


def health_check(*, timeout: timedelta = timedelta(seconds=5)) -> HealthReport:
    """Ask everything the runtime of this process is connected to whether it can work now.

    See `FlowRuntime.health_check`. Without `init` only the process itself is asked.

    Args:
        timeout: for each check; one that hangs is its own failed result.
    """
    started = _process.started
    if started is not None:
        return started.call(started.runtime.health_check(timeout=timeout))
    options = _process.options

    async def once() -> HealthReport:
        from flowruntime.runtime import FlowRuntime

        async with FlowRuntime(**options) as runtime:
            return await runtime.health_check(timeout=timeout)

    return _on_a_loop(once())


def get_system_info() -> SystemInfo:
    """What FlowRx runs on: versions, processors and memory this process may use, its runtime and figures."""
    from flowruntime.system import describe

    started = _process.started
    return describe(
        loop=None if started is None else _class_name(started.loop),
        uptime_s=None if started is None else started.loop.time() - started.began,
        options={name: value for name, value in _process.options.items() if name != "secrets"},
        statistics=None if started is None else started.call(_statistics(started.runtime)),
    )


async def _statistics(runtime: FlowRuntime) -> dict[str, Any]:
    return runtime.statistics()


def _on_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, on a loop of its own; on another thread where one is running here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: list[T] = []
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            raised.append(error)

    thread = threading.Thread(target=elsewhere, name="flow run")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return found[0]


def _checked(options: RuntimeOptions) -> RuntimeOptions:
    """Options with known names, each iterable taken once.

    Raises:
        DefinitionError: there is no such option.
    """
    for name in options:
        if name not in _KNOWN:
            raise DefinitionError(f"there is no runtime option {name!r}; {did_you_mean(name, _KNOWN)}")
    taken: dict[str, Any] = {**options}
    for name in _SEVERAL & taken.keys():
        taken[name] = tuple(taken[name])
    return cast("RuntimeOptions", taken)


def _is_set(name: str, value: object) -> bool:
    missing = object()
    return bool(_process.options.get(name, missing) == value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _class_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _at_exit() -> None:
    """The interpreter ends: let sinks be made final, but never hold the exit up for long."""
    try:
        shutdown(timeout=timedelta(seconds=AT_EXIT_S))
    except Exception as error:  # noqa: BLE001 - others clean up behind us; there is nobody left to raise to
        sys.stderr.write(f"flowruntime: the runtime of this process did not end well: {error}\n")
