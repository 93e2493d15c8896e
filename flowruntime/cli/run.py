"""flow run: a workflow, as a stream until its sources end or someone says stop, or as one request.

Owns: the options, what is printed where, the exit code.
Does not own: running (flowruntime.runtime), figures and drawing (progress, display), signals (signals).
"""

from __future__ import annotations

import asyncio
import io
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import msgspec

from flowcore.profiles import ProfileName
from flowcore.settings import Delivery
from flowruntime.cli.failures import UsageError, print_problems, say
from flowruntime.cli.given import read_input
from flowruntime.cli.parsing import Count, Flag, Texts
from flowruntime.cli.planning import has_source
from flowruntime.cli.resume import store_of
from flowruntime.cli.signals import INTERRUPTED, Interrupts, leave_soon
from flowruntime.cli.streams import print_json
from flowruntime.cli.summary import (
    ends_of,
    exit_code,
    request_summary,
    result_json,
    say_waits,
    spoken_for,
    stream_summary,
)
from flowruntime.cli.target import Target, load_target

if TYPE_CHECKING:
    from flowruntime.cli.display import Display
    from flowruntime.cli.progress import ModelTotals
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.execute.result import RunResult
    from flowruntime.runtime import FlowRuntime

Shown = Literal["pretty", "jsonl", "none"]
LogFormat = Literal["console", "json"]

_RECORDED_AHEAD = 65_536
"""Events `--record` may be behind the run, which waits for it: some 20 MiB."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is watched and where it stops."""

    events: Shown
    record: str | None
    limit: int | None
    fresh: bool
    write: bool
    full: bool = False


def run(  # noqa: PLR0913 - one keyword per option
    file: str,
    /,
    *,
    input: str | None = None,
    param: Texts = None,
    set: Texts = None,
    limit: Count = None,
    dry_run: Flag = False,
    events: Shown = "none",
    record: str | None = None,
    log_format: LogFormat = "console",
    delivery: Delivery | None = None,
    profile: ProfileName | None = None,
    write: Flag = False,
    fresh: Flag = False,
    nodes: Texts = None,
    full: Flag = False,
) -> int:
    """Run a workflow: as a stream, or with --input as one request whose result is printed.

    The result goes to standard output as JSON (of a stream: not to a terminal, where the summary says it, and
    not where the workflow itself writes there). Everything else goes to standard error. The first SIGINT or
    SIGTERM finishes what is in flight, the second aborts.

    Exit code 0 all succeeded or it waits for an answer, 1 failed or partial, 2 usage or validation, 130 a
    drain cut short.

    Args:
        file: workflow file, or module:workflow.
        input: run as a request with these inputs; JSON, @FILE or @- for standard input.
        param: value of a param, name=value; repeat for more.
        set: configuration of a node, node.key=value; repeat for more.
        limit: stop after this many records.
        dry_run: validate, plan and check the configuration of sources and sinks; runs and writes nothing.
        events: show events on standard error instead of the progress display.
        record: write all events to this new file; see flow events.
        log_format: form of log lines.
        delivery: what a crash may do to a record, instead of what the workflow says.
        profile: what the workflow is to be good at, instead of what it says; see flow plan.
        write: let the sinks of a request write although its record was given.
        fresh: ignore saved positions.
        nodes: module of node types; repeat for more.
        full: print the whole result of a request: outputs, times and counts of every node.
    """
    _check(input, limit, write=write, fresh=fresh)
    target = load_target(
        file,
        nodes=nodes or (),
        params=param or (),
        overrides=set or (),
        delivery=delivery,
        profile=profile,
    )
    options = Options(events=events, record=record, limit=limit, fresh=fresh, write=write, full=full)
    given = None if input is None else read_input(input)
    if dry_run:
        from flowruntime.cli.rehearsal import rehearse

        return rehearse(target, given=given, as_request=input is not None)
    _configure_logging(log_format)
    return asyncio.run(_run(target, options, given, as_request=input is not None))


def _check(input: str | None, limit: int | None, *, write: bool, fresh: bool) -> None:
    if input is not None and (limit is not None or fresh):
        raise UsageError("--limit and --fresh are for streams; with --input one record is run")
    if input is None and write:
        raise UsageError("--write is for requests (--input); a stream always writes")


class _CurrentStderr(io.TextIOBase):
    """Standard error as it is when something is written: the live display puts itself in its place."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def _configure_logging(format: LogFormat) -> None:
    from flowruntime.telemetry.logs import configure_logging

    configure_logging(format, stream=cast("TextIO", _CurrentStderr()))


async def _run(target: Target, options: Options, given: Any, *, as_request: bool) -> int:
    from flowruntime.runtime import FlowRuntime

    project = target.project
    async with (
        FlowRuntime(
            target.modules,
            roots=project.roots,
            allow_private_networks=project.allow_private_networks,
            allowed_hosts=project.allowed_hosts,
            prices=project.prices,
            store=store_of(project, None),
            middleware=project.import_middleware(),
        ) as runtime,
        AsyncExitStack() as stack,
    ):
        graph = runtime.validate(target.workflow, mode="request" if as_request else "stream")
        print_problems(graph.warnings, file=target.file)
        as_request = as_request or not has_source(graph)
        if as_request and (options.limit is not None or options.fresh):
            raise UsageError("--limit and --fresh are for streams, and this workflow has no source")
        await _watch(runtime, target, options, stack)
        if as_request:
            return await _request(runtime, target, options, graph, given)
        return await _stream(runtime, target, options, graph)


async def _watch(runtime: FlowRuntime, target: Target, options: Options, stack: AsyncExitStack) -> None:
    """Print and record events from here to the end."""
    if options.events != "none":
        from flowruntime.cli.eventlines import json_line, pretty_line

        line = json_line if options.events == "jsonl" else pretty_line
        listener = runtime.events.listen(lambda event: say(line(event)), name="--events")
        stack.callback(listener.close)
    if options.record is not None:
        import time

        from flowruntime.events.record import Recording
        from flowruntime.installed import version as installed_version

        recording = Recording(
            runtime.events,
            options.record,
            workflow=target.workflow.name,
            flowrx=installed_version(),
            started_at=time.time(),
            buffer=_RECORDED_AHEAD,
        )
        await stack.enter_async_context(recording)


async def _request(
    runtime: FlowRuntime, target: Target, options: Options, graph: ResolvedGraph, given: Any
) -> int:
    from flowruntime.cli.given import as_inputs

    inputs = as_inputs(graph, given)
    execution_id = runtime.new_id()
    if graph.waits:
        say(f"execution {execution_id}, kept in {runtime.store.url} once it has begun")
    work = asyncio.ensure_future(
        runtime.execute(target.workflow, inputs, write=options.write, execution_id=execution_id)
    )

    async def finish() -> None:
        await asyncio.wait([work])

    async def abort() -> None:
        work.cancel()

    async with Interrupts(drain=finish, abort=abort) as interrupts:
        await asyncio.wait([work])
    if work.cancelled() and interrupts.count:
        return INTERRUPTED
    result = work.result()
    if options.events != "jsonl" and (sys.stderr.isatty() or not result.ok):
        say(request_summary(result))
    if result.letters and not result.dead_letters:
        say(f"{len(result.letters)} dead letters were not written, as sinks were not; --write writes both")
    say_waits(result)
    _print_result(result, graph, options, as_request=True)
    return _code_of(result, interrupts)


async def _stream(runtime: FlowRuntime, target: Target, options: Options, graph: ResolvedGraph) -> int:
    started = asyncio.ensure_future(runtime.start(target.workflow, fresh=options.fresh, limit=options.limit))

    async def drain() -> None:
        await (await asyncio.shield(started)).stop()

    async def abort() -> None:
        if not started.done():
            started.cancel()
        elif started.exception() is None:
            await started.result().cancel("interrupted twice")

    async with AsyncExitStack() as stack:
        interrupts = await stack.enter_async_context(Interrupts(drain=drain, abort=abort))
        models: ModelTotals | None = None
        if options.events == "none":
            display = _display(runtime, graph)
            models = display.models
            stack.push_async_callback(display.stop)
        await asyncio.wait([started])
        if started.cancelled():
            return INTERRUPTED
        result = await started.result().wait()
    if options.events != "jsonl":
        say(stream_summary(result))
        if models is not None and models.matter:
            say(str(models))
    _print_result(result, graph, options, as_request=False)
    return _code_of(result, interrupts)


def _code_of(result: RunResult, interrupts: Interrupts) -> int:
    """The exit code; after a signal the process ends with it, whatever does not end in it."""
    code = exit_code(result, interrupted=interrupts.count > 0)
    if interrupts.count:
        leave_soon(code)
    return code


def _display(runtime: FlowRuntime, graph: ResolvedGraph) -> Display:
    from flowruntime.cli.display import Display
    from flowruntime.cli.progress import Progress

    by_role = {
        role: [node.id for node in graph.nodes.values() if node.role == role] for role in ("source", "sink")
    }
    return Display(runtime.events, Progress(by_role["source"], by_role["sink"]))


def _print_result(result: RunResult, graph: ResolvedGraph, options: Options, *, as_request: bool) -> None:
    if spoken_for(graph) and (not as_request or not result.captured):
        return
    if as_request or not sys.stdout.isatty():
        print_json(result_json(result, ends_of(graph) if as_request and not options.full else None))
