"""The expand stage of an asynchronous generator: children come one by one, between waits.

    rows in    a            b
    pulls      a1 . a2      b1 . . |       each under permits, and under the node's timeout
    children   a1 a2        b1

Emits when      a generator yields; children of parents that are expanded side by side mix.
Backpressures   as `expand` does: no generator is pulled while its children have no room.
Completes when  the input has ended, every generator is exhausted and every child has left.
Fails when      never: a generator that raises or does not answer in time fails its row, or is begun anew as
                `retry` says, as long as none of its children has left; children it had yielded go on.
Holds           at most `concurrency` generators that were begun, and one child each.

A permit of each limit is held from the moment a generator is asked for its next child until it answers, and
never while it waits for room, for its turn or out of a backoff: the limits bound what computes, and one
stage waiting for another's permit cannot hold it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from flowcore.errors import CircuitOpenError, ContractError, LimitExceededError, NodeTimeoutError
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.operators.expand import DONE, ExpandOperator, Parent, Start, is_of, rows_of
from flowruntime.resilience.containment import contained
from flowruntime.resilience.retry import next_delay_s
from flowruntime.substream.reader import CALLER

if TYPE_CHECKING:
    import random

    from flowcore.frame import Opened
    from flowruntime.compile.plan import Stage
    from flowruntime.flowcontrol.turnstile import Turnstile
    from flowruntime.operators.kernel import Kernel


class DrippingOperator(ExpandOperator):
    """`start(opened, row, value, attempt)` calls the node and returns its asynchronous iterator.

    Args:
        turnstile: of the node, shared by all chains.
        concurrency: generators begun at once.
        rng: for the jitter of backoffs.
    """

    def __init__(
        self,
        kernel: Kernel,
        stage: Stage,
        start: Start,
        *,
        max_children: int,
        turnstile: Turnstile,
        concurrency: int,
        rng: random.Random,
    ) -> None:
        super().__init__(kernel, stage, start, max_children=max_children)
        self._turnstile = turnstile
        self._concurrency = concurrency
        self._rng = rng
        timeout = self.node.policies.timeout
        self._timeout_s = None if timeout is None else timeout.total_seconds()
        self._retry = self.node.policies.retry
        self._begun: dict[asyncio.Task[None], Parent] = {}
        self._asked = 0
        """Generators asked for a child, which has a place already."""
        self._room = asyncio.Event()

    # --- generators -----------------------------------------------------------------------------------

    def begin(self, parent: Parent) -> None:
        self.line_up(parent)

    def pull(self) -> None:
        """Begin generators while fewer than allowed are at work."""
        if self.kernel.closed:
            return
        while self._parents and len(self._begun) < self._concurrency:
            self._begin_next()
        self._room.set()
        self._begin_oldest()

    def _begin_oldest(self) -> None:
        """One more than allowed, when those at work may have to wait for the oldest record."""
        precedence = self._precedence
        if precedence is None or not self._parents or not precedence.holds:
            return
        begun = any(precedence.concerns(rows_of(parent)) for parent in self._begun.values())
        if not begun and self.bring_oldest():
            self._begin_next()

    def _begin_next(self) -> None:
        parent = self._parents.popleft()
        task = self.kernel.loop.create_task(self._expand(parent), name=f"flow expand {self.node.id}")
        self._begun[task] = parent
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The one place a begun parent ends, even when its task was cancelled before its first step."""
        parent = self._begun.pop(task)
        if self.kernel.streams is not None:
            self.kernel.streams.call_ended(task)
        family = parent.family
        stopped = self.kernel.stopped(family.parent, family.row)
        parent.error = asyncio.CancelledError() if task.cancelled() else task.exception()
        parent.cancelled = task.cancelled() and (stopped is not None or self.kernel.closed)
        self._turnstile.ended(parent)
        if self.kernel.closed:
            return
        if parent.cancelled:
            family.failure = stopped
        elif parent.error is not None:
            self.note_failure(parent, parent.error)
        self.exhausted(parent)
        self.pull()

    async def _expand(self, parent: Parent) -> None:
        """Pull one generator to its end, and keep that it failed where nothing of it is kept yet."""
        journal, family = self.kernel.journal, parent.family
        try:
            await self._attempts(parent)
        except Exception as error:
            if journal is not None and not parent.recalled and not family.size:
                await journal.failed(self.node.id, family.parent, family.row, error)
            raise

    async def _attempts(self, parent: Parent) -> None:
        """Pull one generator to its end; a further one when it failed before its first child left."""
        self.note_started(parent)
        CALLER.set(asyncio.current_task())
        while True:
            try:
                if not parent.recalled:
                    await self._turnstile.begin(parent)
            except (CircuitOpenError, LimitExceededError) as refused:
                # A further attempt that is not made leaves the row with the error of the last one.
                raise parent.error or refused from None
            try:
                await self._pull_all(parent)
            except Exception as error:
                delay_s = self._delay_s(parent, error)
                if delay_s is None:
                    raise
                kernel, family = self.kernel, parent.family
                if kernel.streams is not None:
                    kernel.streams.call_ended(asyncio.current_task(), failed=True)
                kernel.counts[self.node.id].retried += 1
                kernel.worker.telemetry.node_retrying(
                    kernel, self.node.id, family.parent, family.row, error, parent.attempt, delay_s
                )
                parent.error = error
                parent.attempt += 1
                await asyncio.sleep(delay_s)
            else:
                return

    def _delay_s(self, parent: Parent, error: Exception) -> float | None:
        """How long to wait before the next attempt; None: there is none, also once a child has left."""
        policy, guard = self._retry, self._turnstile.guard
        if policy is None or guard is None or parent.family.size or parent.recalled:
            return None
        delay_s = next_delay_s(policy, parent.attempt, self._rng, error)
        return delay_s if guard.repeats(parent, error, delay_s, self.kernel.loop.time()) else None

    async def _pull_all(self, parent: Parent) -> None:
        iterator = self._iterator(parent)
        try:
            while True:
                await self._until_room(parent)
                child = await self._next(iterator, parent)
                if child is DONE:
                    return
                if parent.family.size == self._max_children:
                    raise self.too_many()
                self.emit_children(parent.family, [child], [self._bound.size(child)])
        except SystemExit as error:  # asyncio would hand it to the program
            raise contained(error, self.node.id) from error
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    def _iterator(self, parent: Parent) -> AsyncIterator[Any]:
        family = parent.family
        given = self._start(family.parent, family.row, parent.value, parent.attempt)
        if not hasattr(given, "__aiter__"):
            raise ContractError(
                f"node {self.node.id!r} gave a {type(given).__name__}, not an asynchronous iterator, as its "
                "signature says",
                node=self.node.id,
            )
        return aiter(given)

    async def _until_room(self, parent: Parent) -> None:
        """Until a further child of the parent may come."""
        precedence = self._precedence
        while True:
            if self._open_children + self._asked < self._allowance:
                if precedence is None or not precedence.holds or precedence.admits(rows_of(parent)):
                    return
                precedence.wait(self.pull)
                self._begin_oldest()
            self._room.clear()
            await self._room.wait()

    async def _next(self, iterator: AsyncIterator[Any], parent: Parent) -> Any:
        """The next child, or DONE; under permits."""
        if parent.recalled:
            return await anext(iterator, DONE)
        self._asked += 1
        try:
            await self._turnstile.enter(self)
            try:
                return await self._answer(iterator, parent)
            finally:
                self._turnstile.leave()
        finally:
            self._asked -= 1
            self._room.set()

    async def _answer(self, iterator: AsyncIterator[Any], parent: Parent) -> Any:
        if self._timeout_s is None:
            return await anext(iterator, DONE)
        late: Exception | None = None
        child: Any = None
        scope = asyncio.timeout(self._timeout_s)
        try:
            async with scope:
                child = await anext(iterator, DONE)
        except Exception as error:
            if not scope.expired():
                raise
            late = error
        if not scope.expired():
            return child
        raise NodeTimeoutError(
            f"node {self.node.id!r} did not yield its next child within {self._timeout_s} s (attempt "
            f"{parent.attempt}, {parent.family.size} children before); raise its timeout, or retry",
            node=self.node.id,
            timeout_s=self._timeout_s,
        ) from late

    def children_settled(self) -> None:
        self._room.set()

    # --- taking down ----------------------------------------------------------------------------------

    def cancel_execution(self, root: Opened, row: int) -> None:
        super().cancel_execution(root, row)
        for task, parent in list(self._begun.items()):
            if is_of(parent, root, row):
                task.cancel()

    async def until_quiet(self) -> None:
        if not self._begun:
            return
        _, stuck = await asyncio.wait(self._begun, timeout=PATIENCE_S)
        if stuck:
            self.kernel.worker.report(
                self.node.id, f"does not end: {len(stuck)} of its generators swallow cancellation"
            )

    def close(self) -> None:
        super().close()
        for task in list(self._begun):
            task.cancel()

    def statistics(self) -> dict[str, Any]:
        figures = super().statistics()
        return {**figures, "parents": figures["parents"] + len(self._begun)}
