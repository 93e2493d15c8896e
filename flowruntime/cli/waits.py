"""flow waits: what executions wait for.

Owns: what is listed, as a table or as JSON.
Does not own: waits (flowcore.waits), answering them (resume).
"""

from __future__ import annotations

import asyncio
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowcore.event_codec import plain_payload
from flowcore.waits import Wait
from flowruntime.cli.failures import UsageError, say
from flowruntime.cli.parsing import Count, Flag
from flowruntime.cli.project import project_of
from flowruntime.cli.resume import store_of
from flowruntime.cli.streams import print_json
from flowruntime.cli.summary import moment
from flowruntime.cli.tables import table
from flowruntime.state.store.entries import MAX_PAGE, WaitFilter
from flowruntime.state.store.opening import open_store
from flowruntime.state.store.url import StoreUrl

if TYPE_CHECKING:
    from flowruntime.execute.result import RunResult


def waits(
    *,
    execution: str | None = None,
    cancel: str | None = None,
    limit: Count = None,
    store: str | None = None,
    json: Flag = False,
) -> int:
    """List what executions and rows of runs wait for, the oldest first; answer with flow resume.

    Args:
        execution: only of this one.
        cancel: give up this execution, or row: it ends cancelled. Lists nothing.
        limit: at most so many.
        store: url of the store; else that of flow.toml, else sqlite:.flow/flow.sqlite.
        json: print JSON, with the schema of each answer.
    """
    target = store_of(project_of(Path.cwd()), store)
    if cancel is not None:
        return _cancel(target, cancel)
    if target.kind == "sqlite" and not target.path.exists():  # to look must not make one
        found: list[Wait] = []
    else:
        found = asyncio.run(_open_waits(target, execution, limit))
    if json:
        print_json(dumps([_plain(wait) for wait in found], indent=2, ensure_ascii=False))
    elif found:
        print(table([_HEAD, *(_cells(wait) for wait in found)]))
    else:
        say(f"nothing waits in {target.shown}")
    return 0


def _cancel(target: StoreUrl, execution: str) -> int:
    if target.kind == "sqlite" and not target.path.exists():
        raise UsageError(
            f"there is no store at {target.shown}; go where the workflow ran, or name its --store"
        )
    result = asyncio.run(_give_up(target, execution))
    say(f"{result.execution_id} is {result.state.name}")
    return 0


async def _give_up(target: StoreUrl, execution: str) -> RunResult:
    from flowruntime.runtime import FlowRuntime

    async with FlowRuntime(store=target) as runtime:
        return await runtime.cancel_execution(execution)


_HEAD = ["execution", "wait", "node", "kind", "since", "until", "title"]


def _cells(wait: Wait) -> list[str]:
    until = "" if wait.expires_at is None else moment(wait.expires_at)
    title = " ".join(wait.title.split())
    return [wait.execution_id, wait.id, wait.node, wait.kind, moment(wait.created_at), until, title]


def _plain(wait: Wait) -> Any:
    return plain_payload(
        {
            "execution": wait.execution_id,
            "wait": wait.id,
            "node": wait.node,
            "path": wait.path,
            "kind": wait.kind,
            "title": wait.title,
            "schema": wait.schema,
            "created_at": wait.created_at,
            "expires_at": wait.expires_at,
            "on_timeout": wait.on_timeout,
        }
    )


async def _open_waits(target: StoreUrl, execution: str | None, limit: int | None) -> list[Wait]:
    """Those that are open, of executions that have not ended."""
    found: list[Wait] = []
    after: str | None = None
    async with open_store(target) as store:
        wanted = WaitFilter(execution_id=execution, states=frozenset({"open"}))
        while limit is None or len(found) < limit:
            page = await store.waits.list(wanted, limit=MAX_PAGE, after=after)
            found += [
                wait
                for wait in page.items
                if not (await store.executions.get(wait.execution_id)).state.finished
            ]
            if page.after is None:
                break
            after = page.after
    return found if limit is None else found[:limit]
