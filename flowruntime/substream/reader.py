"""One consumer's way through a stream.

Owns: `Reader`, its `Seat` at the producer, and `CALLER`, whose call a stream is read in.
Does not own: the producer (production), which items a reader may take (tape).

Always holds: a reader whose stream was cancelled raises; it never looks as if the stream had come to its end.
A reader that nobody refers to any more has left, as one that was closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar

from flowcore.errors import ContractError, StreamCancelledError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CALLER: ContextVar[object] = ContextVar("flow_caller", default=None)
"""Set once by each task of the engine that calls user code, and inherited by the tasks that code starts: so
what was read during a call is known, whichever task read it."""


class Seat:
    """A reader's place at a producer, which lasts no longer than somebody holds the reader."""

    __slots__ = ("caller", "parked", "waiting")

    def __init__(self) -> None:
        self.caller: object = None
        """The task whose call reads; nobody waits for the reader once that call is over."""
        self.parked = False
        """Its call is over. Whoever it was handed to takes the seat again by reading on."""
        self.waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """There is something new."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


class Producer(Protocol[T_co]):
    """What a reader asks of what it reads: see `Production`."""

    @property
    def is_over(self) -> bool: ...
    @property
    def is_cancelled(self) -> bool: ...
    def join(self, seat: Seat) -> None: ...
    def resume(self, seat: Seat) -> None: ...
    def has_next(self, seat: Seat) -> bool: ...
    def take(self, seat: Seat) -> T_co: ...
    def raise_error(self) -> None: ...
    def leave(self, seat: Seat) -> None: ...
    def left_behind(self, seat: Seat) -> None: ...
    def not_wanted(self) -> None: ...


class Reader(AsyncIterator[T], Generic[T]):
    """What `aiter(stream)` gives; for one task at a time."""

    __slots__ = ("_closed", "_production", "_seat")

    def __init__(self, production: Producer[T]) -> None:
        self._production = production
        self._seat: Seat | None = None
        self._closed = False

    async def __anext__(self) -> T:
        production = self._production
        while not self._closed:
            if production.is_cancelled:
                raise StreamCancelledError(
                    f"{production!r} was cancelled before its end: its row is over, or somebody called "
                    "cancel()",
                    stream=production,
                )
            seat = self._take_seat()
            if production.has_next(seat):
                return production.take(seat)
            if production.is_over:
                try:
                    production.raise_error()
                finally:
                    self._leave()
                break
            await self._wait(seat)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Want nothing more, before the end."""
        if not self._closed:
            self._leave()

    def __del__(self) -> None:
        if not self._closed and self._seat is not None:
            self._production.left_behind(self._seat)

    def _take_seat(self) -> Seat:
        seat = self._seat
        if seat is not None and not seat.parked:
            return seat
        try:
            if seat is None:
                seat = Seat()
                seat.caller = CALLER.get()
                self._production.join(seat)
                self._seat = seat
            else:
                seat.caller = CALLER.get()
                self._production.resume(seat)
        except ContractError:
            self._closed = True
            raise
        return seat

    def _leave(self) -> None:
        self._closed = True
        if self._seat is not None:
            self._production.leave(self._seat)
        else:
            self._production.not_wanted()

    async def _wait(self, seat: Seat) -> None:
        """Until there is something new."""
        if seat.waiting is not None:
            raise ContractError(
                f"two tasks read one iterator of {self._production!r}; share the stream, and give each task "
                "an iterator of its own",
                stream=self._production,
            )
        seat.waiting = asyncio.get_running_loop().create_future()
        try:
            await seat.waiting
        finally:
            seat.waiting = None
