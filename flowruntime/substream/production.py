"""One producer and its readers: pulled while somebody reads, closed once, whatever happens.

Owns: `Production`: the task that pulls an asynchronous iterator, how it ends, its clean-up.
Does not own: who may take which item (tape), one consumer's iterator (reader), what a node sees (live), the
row it keeps unsettled (rows).

    reader     . . 1 2 . . 3 |          nothing is pulled before somebody reads
    producer   . . 1 2 3 4 5 .          then it runs ahead by at most `capacity` items

Always holds: one task pulls the iterator from its first item to its clean-up, so that timeouts and cancel
scopes inside it work; it is over exactly once, after the iterator and `on_close` are done with; an error of
the producer reaches whoever asks for the next item, and is logged when nobody does. Loop thread only, but
for making one and `cancel`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

from flowcore.errors import ContractError, describe_error
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.resilience.containment import contained
from flowruntime.substream.given import checked_capacity, iterator_of
from flowruntime.substream.reader import CALLER, Seat
from flowruntime.substream.tape import Tape

if TYPE_CHECKING:
    from flowcore.context import OnClose

T = TypeVar("T")

State = Literal["waiting", "open", "ended", "failed", "cancelled"]


class Watcher(Protocol):
    """Whoever must know of a production."""

    def reads(self, production: Production[Any], seat: Seat) -> None:
        """A reader begins, or goes on in another call."""
        ...

    def left(self, seat: Seat) -> None:
        """A reader wants nothing more."""
        ...

    def over(self, production: Production[Any]) -> None:
        """It has ended, failed or was cancelled, and is cleaned up. Told once."""
        ...


class Production(Generic[T]):
    """The producer of one Stream.

    Args:
        items: what it yields; closed with `aclose` when there is such a method.
        node_id: the node that made the stream, for messages.
        capacity: items it may be ahead of its slowest reader.
        on_close: awaited once after `items` was closed.
        report: takes what went wrong where no row can fail for it, as words behind the node's name.
        loop: where it runs; None: the loop of its first reader.

    Raises:
        ContractError: `items` is not asynchronous, or `capacity` is below 1.
    """

    def __init__(
        self,
        items: AsyncIterable[T],
        *,
        node_id: str,
        capacity: int,
        on_close: OnClose | None,
        report: Callable[[str], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.node_id: Final = node_id
        self.watcher: Watcher | None = None
        self.state: State = "waiting"
        self.items_produced = 0
        self.gathered: list[T] | None = None
        """Every item, once the end of a workflow has gathered them."""
        self.seats: set[Seat] = set()
        """Of its readers."""
        self.error: Exception | None = None
        self._tape: Tape[T] = Tape(checked_capacity(capacity, node_id), replays=False)
        self._shared = False
        self._iterator = iterator_of(items, node_id)
        self._on_close = on_close
        self._report = report
        self._loop = loop
        self._context = copy_context()
        self._task: asyncio.Task[None] | None = None
        self._phase: Literal["idle", "pulling", "closing"] = "idle"
        self._cancelling = False
        self._error_told = False
        self._patience: asyncio.TimerHandle | None = None
        """Runs from its cancellation on."""
        self._interrupted: asyncio.CancelledError | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Nothing of it runs any more, and nothing follows."""
        return self.state not in ("waiting", "open")

    @property
    def is_cancelled(self) -> bool:
        """No item may be taken any more."""
        return self._cancelling or self.state == "cancelled"

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task

    @property
    def ready(self) -> int:
        """Items produced and kept."""
        return self._tape.ready

    def __repr__(self) -> str:
        return f"<Stream of node {self.node_id!r}: {self.state}, {self.items_produced} items>"

    # --- readers --------------------------------------------------------------------------------------

    def share(self, capacity: int) -> None:
        """Let several readers have it; before the first one."""
        self._shared = True
        self._tape = Tape(checked_capacity(capacity, self.node_id), replays=True)

    def join(self, seat: Seat) -> None:
        """A reader asks for its first item.

        Raises:
            ContractError: on another loop, or when the first item is gone.
        """
        running = _running_loop()
        if self._loop is None:
            self._loop = running
        if running is None or running is not self._loop:
            raise ContractError(
                f"{self!r} is read outside the event loop it belongs to; read it with `async for` in a "
                "coroutine node, or put stream.collect before this one",
                node=self.node_id,
            )
        if not self._tape.join(seat):
            raise self._too_late("first items")
        self.seats.add(seat)
        self._begin(seat)
        if not self.is_over and self._task is None:
            self._start(running)

    def resume(self, seat: Seat) -> None:
        """A parked reader reads on, in another call.

        Raises:
            ContractError: the item it would take next is gone.
        """
        if not self._tape.resume(seat):
            self.leave(seat)
            raise self._too_late("next items")
        seat.parked = False
        self._begin(seat)

    def _begin(self, seat: Seat) -> None:
        if self.watcher is not None:
            self.watcher.reads(self, seat)
        self._make_room()

    def _too_late(self, which: str) -> ContractError:
        return ContractError(
            f"{self!r} has let go of its {which} before this consumer came for them; raise the capacity of "
            f"share (its newest {self._tape.capacity} items are kept for consumers that come later), or "
            "collect it once",
            node=self.node_id,
            capacity=self._tape.capacity,
        )

    def park(self, seat: Seat) -> None:
        """The call a reader was used in is over: nobody waits for it any more."""
        seat.parked = True
        self._tape.park(seat)
        self._make_room()

    def leave(self, seat: Seat) -> None:
        """A reader wants nothing more; where no other one can come, the producer is closed."""
        self._tape.leave(seat)
        self.seats.discard(seat)
        if self.watcher is not None:
            self.watcher.left(seat)
        seat.wake()
        if self.is_over:
            self._report_unheard()
        elif self._shared:
            self._make_room()
        else:
            self.cancel()

    def left_behind(self, seat: Seat) -> None:
        """Nobody refers to a reader any more; told from wherever that was found."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self.leave, seat)

    def not_wanted(self) -> None:
        """A reader was closed before it read anything."""
        if not self._shared:
            self.cancel()

    def has_next(self, seat: Seat) -> bool:
        return self._tape.has_next(seat)

    def take(self, seat: Seat) -> T:
        """The next item of a reader; there must be one."""
        item = self._tape.take(seat)
        self._make_room()
        return item

    def _make_room(self) -> None:
        room = self._room
        if room is not None and not room.done() and self._tape.wants_more:
            room.set_result(None)

    def _wake_readers(self) -> None:
        for seat in self.seats:
            seat.wake()

    # --- producing ------------------------------------------------------------------------------------

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.state = "open"
        name = f"flow stream {self.node_id}"
        self._task = loop.create_task(self._run(), name=name, context=self._context)
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        CALLER.set(self._task)
        error: Exception | None = None
        if not self._cancelling:
            self._phase = "pulling"
            error = await self._outcome_of(self._pull())
        self._phase = "closing"
        if self._was_cancelled():  # but its producer has ended before it came to that
            await self._outcome_of(asyncio.sleep(0))
        self._conclude(error, await self._clean_up())
        if self._interrupted is not None:
            raise self._interrupted

    async def _outcome_of(self, awaitable: Awaitable[object]) -> Exception | None:
        """What user code fails with, as a value; its cancellation from outside is kept until all is done."""
        try:
            await awaitable
        except BaseException as raised:
            if self._is_gone(raised):
                raise
            if not isinstance(raised, asyncio.CancelledError) or not self._was_cancelled():
                return contained(raised, self.node_id)
            if self._patience is None:  # by whoever takes the loop down
                self._cancelling, self._interrupted = True, raised
        return None

    def _is_gone(self, raised: BaseException) -> bool:
        """Nobody's error: the loop is gone, and this coroutine is being taken down where it stood."""
        return isinstance(raised, GeneratorExit) and _running_loop() is not self._loop

    def _was_cancelled(self) -> bool:
        """Somebody has cancelled the task; from then on it may wait again, to clean up."""
        task, found = self._task, False
        while task is not None and task.cancelling():
            task.uncancel()
            found = True
        return found

    async def _pull(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._cancelling:
            while not self._tape.wants_more:
                self._room = loop.create_future()
                await self._room
            try:
                item = await self._iterator.__anext__()
            except StopAsyncIteration:
                return
            if self._cancelling:
                return
            self.items_produced += 1
            self._tape.put(item)
            self._wake_readers()

    async def _clean_up(self) -> Exception | None:
        """Close the iterator, then what stands behind it; the error of one of the two."""
        found: Exception | None = None
        for close in (getattr(self._iterator, "aclose", None), self._on_close):
            if close is not None:
                found = await self._outcome_of(_called(close)) or found
        return found

    def _conclude(self, error: Exception | None, unclean: Exception | None) -> None:
        """Where the errors of the producer go: to whoever asks for the next item, else to the log."""
        if self._cancelling:
            lost = [each for each in (error, unclean) if each is not None]
        else:
            self.error = error or unclean
            lost = [unclean] if error is not None and unclean is not None else []
        if self.error is not None:
            self.error.add_note(f"raised by the stream of node {self.node_id!r}")
        for each in lost:
            self._report(f"has a stream that failed while it was closed: {_named(each)}")

    def raise_error(self) -> None:
        """Give a reader the error of the producer, if there was one.

        Raises:
            Exception: that error.
        """
        if self.error is not None:
            self._error_told = True
            raise self.error

    def _report_unheard(self) -> None:
        """The last reader has left, and none of them came to the error."""
        if self.error is not None and not self._error_told and not self.seats:
            self._error_told = True
            self._report(
                f"has a stream that failed, and nobody asked for its next item: {_named(self.error)}"
            )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._cancelling = True  # cut short from outside, by whoever takes the loop down
        self._be_over()

    def _be_over(self) -> None:
        if self.is_over:
            return
        if self._patience is not None:
            self._patience.cancel()
        if self._cancelling:
            self.state = "cancelled"
        else:
            self.state = "ended" if self.error is None else "failed"
        self._wake_readers()
        self._report_unheard()
        if self.watcher is not None:
            self.watcher.over(self)

    # --- ending early ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Pull nothing more and clean up; readers that still ask are told. Idempotent, from any thread.

        Raises:
            ContractError: no event loop runs here, and nobody has read it on one.
        """
        loop, running = self._loop, _running_loop()
        if loop is not None and loop is not running:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.cancel)
            return
        if self.is_over or self._patience is not None:
            return
        if running is None:
            raise ContractError(f"{self!r} can be cancelled only where an event loop runs", node=self.node_id)
        self._loop = running
        self._patience = running.call_later(PATIENCE_S, self._give_up)
        if self._phase == "closing":
            return  # it has come to its end already
        self._cancelling = True
        self._tape.clear()
        self._wake_readers()
        if self._task is None:
            self._start(running)  # for the clean-up alone
        elif self._phase == "pulling":
            self._task.cancel()

    def _give_up(self) -> None:
        self._report(
            f"has a stream that was cancelled {PATIENCE_S:g} s ago and does not end: its producer swallows "
            "cancellation; the row waits no longer"
        )
        self._cancelling = True
        self._be_over()


async def _called(close: Callable[[], Awaitable[object]]) -> None:
    await close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _named(error: Exception) -> str:
    told = describe_error(error)
    return f"{told['kind']}: {told['message']}"
