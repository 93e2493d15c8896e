"""flow resume: go on with an execution that waits, with an answer or where a process died.

Owns: the options, what is printed, the exit code.
Does not own: going on (flowruntime.durable), the form of results (summary).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from flowcore.errors import FlowError
from flowcore.states import Cancelled
from flowruntime.cli.failures import FAILED, UsageError, exit_code_of, say
from flowruntime.cli.given import read_input
from flowruntime.cli.parsing import Flag, Texts
from flowruntime.cli.project import Project, project_of
from flowruntime.cli.streams import print_json
from flowruntime.cli.summary import ends_of, exit_code, result_json, say_waits, spoken_for
from flowruntime.durable.held import is_held
from flowruntime.state.store.url import StoreUrl, read_store_url

if TYPE_CHECKING:
    from flowruntime.execute.result import RunResult
    from flowruntime.runtime import FlowRuntime

DEFAULT_STORE: Final = "sqlite:.flow/flow.sqlite"
"""Where executions that wait are kept when flow.toml names no store."""


def resume(  # noqa: PLR0913 - one keyword per option
    execution: str | None = None,
    /,
    *,
    input: str | None = None,
    wait: str | None = None,
    by: str = "",
    due: Flag = False,
    take_over: Flag = False,
    store: str | None = None,
    nodes: Texts = None,
    full: Flag = False,
) -> int:
    """Answer what an execution waits for and go on with it; nodes that have run are not run again.

    Without --input it goes on with the answers it has: after a crash, for example. --due goes on with every
    execution that can: whose time is up, or whose process died. Results go to standard output as JSON.

    Exit code 0 all succeeded or it waits again, 1 failed or partial, 2 usage, or an answer that is refused.

    Args:
        execution: id of the execution; flow waits lists those that wait.
        input: the answer; JSON, @FILE or @- for standard input.
        wait: which wait is answered, where the execution has several.
        by: who answers.
        due: go on with every execution that can, in the place of one.
        take_over: also from a process that is not known to be gone. Make sure that it is.
        store: url of the store; else that of flow.toml, else sqlite:.flow/flow.sqlite.
        nodes: module of node types; repeat for more.
        full: print the whole result: outputs, times and counts of every node.
    """
    if due == (execution is not None):
        raise UsageError("give the id of an execution, or --due; `flow waits` lists what waits")
    if due and (input is not None or wait is not None):
        raise UsageError("--due answers nothing; name an execution to answer what it waits for")
    project = project_of(Path.cwd())
    target = store_of(project, store)
    if target.kind == "sqlite" and not target.path.exists():
        raise UsageError(
            f"there is no store at {target.shown}; go where the workflow ran, or name its --store"
        )
    answer = UNSET if input is None else read_input(input)
    asked = Asked(answer=answer, wait=wait, by=by, take_over=take_over)
    modules = project.import_nodes(nodes or ())
    return asyncio.run(_in_runtime(project, modules, target, execution, asked, full=full))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with one execution."""

    answer: Any
    wait: str | None
    by: str
    take_over: bool


async def _in_runtime(
    project: Project,
    modules: Sequence[object],
    store: StoreUrl,
    execution: str | None,
    asked: Asked,
    *,
    full: bool,
) -> int:
    from flowruntime.runtime import FlowRuntime

    async with FlowRuntime(
        modules,
        roots=project.roots,
        allow_private_networks=project.allow_private_networks,
        allowed_hosts=project.allowed_hosts,
        prices=project.prices,
        store=store,
        middleware=project.import_middleware(),
    ) as runtime:
        if execution is None:
            return await _all_due(runtime)
        return await _resume(runtime, execution, asked, full=full)


def store_of(project: Project, given: str | None) -> StoreUrl:
    """The store of an option, of flow.toml, or the one in `.flow`."""
    if given is not None:
        return read_store_url(given, base=None)
    return project.store or read_store_url(DEFAULT_STORE, base=None)


async def _resume(runtime: FlowRuntime, execution: str, asked: Asked, *, full: bool) -> int:
    result = await runtime.resume(
        execution, asked.answer, wait=asked.wait, by=asked.by, take_over=asked.take_over
    )
    stored = await runtime.store.executions.get(execution)
    if is_held(stored.inputs):
        return _say_row(result)
    say_waits(result)
    kept = await runtime.store.workflows.get(stored.workflow_id, stored.workflow_version)
    graph = runtime.validate(kept.workflow, mode="request")
    if result.captured or not spoken_for(graph):
        print_json(result_json(result, None if full else ends_of(graph)))
    return exit_code(result, interrupted=False)


def _say_row(result: RunResult) -> int:
    """Where a row of a continuous run stands."""
    say_waits(result)
    if not result.waits:
        where = (
            ""
            if isinstance(result.state, Cancelled)
            else f"; it goes on in a run of {result.workflow_id!r}, or the next"
        )
        say(f"row {result.execution_id} is {result.state.name}{where}")
    print_json(result_json(result, []))
    return exit_code(result, interrupted=False)


async def _all_due(runtime: FlowRuntime) -> int:
    """One line per execution that could go on."""
    code = 0
    for done in await runtime.expire_waits():
        if isinstance(done, FlowError):
            code = max(code, exit_code_of("resume", done) or FAILED)
            continue
        print(f"{done.execution_id}  {done.workflow_id}  {done.state.name}")
        say_waits(done)
        code = max(code, exit_code(done, interrupted=False))
    if code == 0:
        say("nothing else is due")
    return code
