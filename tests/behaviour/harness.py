"""What the behaviour tests share: virtual time, scripted sources and sinks, and a few nodes.

Owns: `virtual`, which runs a test on virtual time; sources and sinks whose every step a test decides.
Does not own: expectations; those stand in the tests.

Always holds: a test on virtual time never sleeps for real, and nothing it started outlives it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, Literal, cast

import msgspec

from flowcore.connector import Assigned, Credit, Position, Reader, Revoked, Rows, Sink, Source
from flowcore.context import SinkContext, SourceContext
from flowcore.node import node
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.virtual import run_virtual


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop whose time jumps; fails when the test leaves a task behind."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(_checked(test(**fixtures)))

    vars(run)["__signature__"] = inspect.signature(test)  # pytest reads the fixtures there
    del vars(run)["__wrapped__"]  # else pytest takes it for a coroutine
    return run


async def _checked(test: Coroutine[Any, Any, None]) -> None:
    await test
    assert running() == []


def running() -> list[str]:
    """Names of all tasks but the caller's."""
    mine = asyncio.current_task()
    return sorted(task.get_name() for task in asyncio.all_tasks() if task is not mine)


def now() -> float:
    """The loop's time, in seconds."""
    return asyncio.get_running_loop().time()


def runtime(**options: Any) -> FlowRuntime:
    """A runtime on the loop's time that keeps nothing on disk."""
    loop = asyncio.get_running_loop()
    settings: dict[str, Any] = {"clock": loop.time, "watchdog": None, "state_dir": None, "seed": 1}
    return FlowRuntime(**(settings | options))


class Nothing(msgspec.Struct, frozen=True):
    """No configuration."""


Step = list[Any] | BaseException | Callable[[], Awaitable[None]]
"""Of a script: rows to hand over, an error to raise, something to wait for."""


class Script(Source[Nothing, Any], type="test.script"):
    """Rows given one read at a time; an exception among them is raised, an awaitable awaited."""

    positions = "runtime"

    def __init__(self, reads: Iterable[Step] = (), **partitions: Iterable[Step]) -> None:
        super().__init__(Nothing())
        given = partitions or {"0": reads}
        self._reads: dict[str, list[Step]] = {name: list(steps) for name, steps in given.items()}
        self.credits: list[int] = []
        self.committed: dict[str, list[Any]] = {name: [] for name in self._reads}
        self.closed: list[str] = []
        self.shut_down = 0
        self.handed_over = 0

    async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned | Revoked]:
        del ctx
        for partition in self._reads:
            yield Assigned(partition)

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[Any]:
        del ctx
        return _ScriptReader(self, partition, self._reads[partition], 0 if resume is None else resume)

    async def shutdown(self) -> None:
        self.shut_down += 1


class _ScriptReader:
    def __init__(self, script: Script, partition: str, steps: list[Step], start: Any) -> None:
        self._script = script
        self._partition = partition
        self._steps = list(steps)
        self._at: int = start
        skip = self._at
        while skip > 0 and self._steps:
            step = self._steps.pop(0)
            if not isinstance(step, list):
                continue
            rows = cast("list[Any]", step)
            self._steps[:0] = [rows[skip:]] if len(rows) > skip else []
            skip = max(0, skip - len(rows))

    async def read(self, credit: Credit) -> Rows[Any] | None:
        script = self._script
        script.credits.append(credit.rows)
        while self._steps:
            step = self._steps[0]
            if isinstance(step, BaseException):
                self._steps.pop(0)
                raise step
            if not isinstance(step, list):
                await step()
                self._steps.pop(0)
                continue
            rows = cast("list[Any]", self._steps.pop(0))
            values = rows[: credit.rows]
            self._steps[:0] = [rows[credit.rows :]] if len(rows) > credit.rows else []
            first = self._at
            self._at += len(values)
            script.handed_over += len(values)
            positions = list(range(first + 1, self._at + 1))
            return Rows(values, next=self._at, positions=positions)
        return None

    async def commit(self, position: Position) -> None:
        self._script.committed[self._partition].append(position)

    async def close(self) -> None:
        self._script.closed.append(self._partition)


class Kept(Sink[Nothing, Any]):
    """Keeps what it is given in `rows` of the class; what a write does is up to the test."""

    rows: ClassVar[list[Any]]
    log: ClassVar[list[str]]
    behaviour: ClassVar[Callable[[Rows[Any]], Any]]

    def __init__(self, config: Nothing) -> None:
        super().__init__(config)

    async def open(self, ctx: SinkContext) -> None:
        del ctx
        self.log.append("open")

    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        errors: Any = type(self).behaviour(batch)
        if inspect.isawaitable(errors):
            errors = await errors
        refused: Mapping[int, Exception] = errors or {}
        self.rows.extend(value for index, value in enumerate(batch.values) if index not in refused)
        return refused

    async def finish(self) -> None:
        self.log.append("finish")

    async def close(self) -> None:
        self.log.append("close")


def kept(
    write: Callable[[Rows[Any]], Any] = lambda _: None,
    *,
    settles_: Literal["on_write", "at_end"] = "on_write",
    name: str = "test.kept",
) -> type[Kept]:
    """A sink class of its own, with empty `rows` and `log`."""

    class Own(Kept, Sink[Nothing, Any], type=name):
        rows: ClassVar[list[Any]] = []
        log: ClassVar[list[str]] = []
        behaviour = staticmethod(write)
        settles = settles_

    return Own


def graveyard(letters: CollectedLetters, name: str = "test.graveyard") -> type[Sink[Nothing, Any]]:
    """A sink class whose dead letters are those; to be known to a runtime by `nodes=[...]`."""

    class Graveyard(Sink[Nothing, Any], type=name):
        @classmethod
        def dead_letters(cls, config: Nothing) -> CollectedLetters:
            del config
            return letters

        async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
            raise NotImplementedError

    return Graveyard


DEAD_LETTER = {"on_error": "dead_letter", "dead_letter": {"type": "test.graveyard"}}
"""Settings: every failed row goes to `graveyard(...)`."""


@node("test.wait")
async def wait(seconds: float) -> float:
    """Sleep that long."""
    await asyncio.sleep(seconds)
    return seconds


@node("test.same")
def same(value: Any) -> Any:
    """The value."""
    return value


@node("test.later")
async def later(value: Any) -> Any:
    """The value, one loop turn later."""
    await asyncio.sleep(0)
    return value


@node("test.forever")
async def forever(value: Any) -> Any:
    """Never answers."""
    await asyncio.Event().wait()
    return value
