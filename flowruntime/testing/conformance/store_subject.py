"""What the parts of the store contract share: the store under test, how one is run, what is put into it.

Owns: `StoreSubject`, and the helpers of the `store_` modules.
Does not own: the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flowcore.errors import FlowError
from flowcore.values import Json, SecretRef
from flowcore.waits import Wait
from flowcore.workflow import Workflow
from flowruntime.state.store.entries import Page, StoredExecution, WorkflowHead, new_execution
from flowruntime.state.store.protocol import Store

R = TypeVar("R")
E = TypeVar("E", bound=FlowError)
T = TypeVar("T")
_TIMEOUT_S: Final = 50.0

VALUES: Final[tuple[object, ...]] = (
    None,
    True,
    1,
    1.0,
    -0.0,
    math.nan,
    math.inf,
    2**53 + 1,
    -(2**80),
    "",
    "text with \0, ü, \U0001f600 and \ud800",
    b"\x00\xff",
    Json(b'{"spaces":  1.0}'),
    SecretRef("NAME"),
    [1, [1.0, [True, None]]],
    {"$key": {"": []}, "ü\0": {"a": 1}},
)
"""Of every kind, and those that are easily lost."""


@dataclass(frozen=True, kw_only=True)
class StoreSubject:
    """A store under test."""

    make: Callable[[], Store]
    """A new object for the same place, each time it is called; the place is empty before the first one."""
    durable: bool = True
    """What one object stored, others see, at the same time and later."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[Store]:
        """A store, closed again."""
        async with self.make() as store:
            yield store

    @contextlib.asynccontextmanager
    async def several(self, count: int) -> AsyncGenerator[list[Store]]:
        """As many objects for the same place; the same one again where they do not share it."""
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(self.make())
            others = [
                await stack.enter_async_context(self.make()) if self.durable else first
                for _ in range(count - 1)
            ]
            yield [first, *others]


class Refusal:
    """What `refused` caught."""

    error: Any = None


@contextlib.contextmanager
def refused(kind: type[FlowError]) -> Generator[Refusal]:
    """What is done in here is refused with that error, which says something."""
    refusal = Refusal()
    try:
        yield refusal
    except kind as error:
        refusal.error = error
    assert refusal.error is not None, f"it was not refused; {kind.__name__} was expected"
    assert refusal.error.message


def run(scenario: Coroutine[Any, Any, R]) -> R:
    """Run a scenario on a loop of its own."""

    async def bounded() -> R:
        async with asyncio.timeout(_TIMEOUT_S):
            return await scenario

    return asyncio.run(bounded())


async def outcomes(*attempts: Awaitable[T]) -> tuple[list[T], list[BaseException]]:
    """Attempts made at the same time: what came of those that succeeded, and why the others failed."""
    done = await asyncio.gather(*attempts, return_exceptions=True)
    return [each for each in done if not isinstance(each, BaseException)], [
        each for each in done if isinstance(each, BaseException)
    ]


async def all_pages(ask: Callable[[str | None], Awaitable[Page[T]]]) -> list[T]:
    """The items of every page, in order."""
    page = await ask(None)
    items = list(page.items)
    while page.after is not None:
        page = await ask(page.after)
        assert page.items, "a page that was promised is empty"
        items += page.items
    return items


def workflow(name: str = "triage", *, id: str | None = None, text: object = "a") -> Workflow:
    """A small workflow; `text` makes a difference."""
    made = Workflow(name, id=id)
    made.chain(
        made.add("memory.source", id="source", config={"values": [text]}),
        made.add("memory.sink", id="sink"),
    )
    return made


async def an_execution(
    store: Store, id: str = "e1", *, at: float = 1.0, running: bool = False
) -> StoredExecution:
    """Stored, of a workflow that is stored, too."""
    head: WorkflowHead = await store.workflows.put(workflow(), at=0.0)
    execution = new_execution(id, head, {"text": id}, at=at, running=running)
    await store.executions.create(execution)
    return execution


def a_wait(id: str = "w1", **fields: Any) -> Wait:
    """An open one of execution e1."""
    given: dict[str, Any] = {
        "id": id,
        "execution_id": "e1",
        "node": "ask",
        "kind": "approval",
        "created_at": 1.0,
    }
    return Wait(**(given | fields))
