"""The deadlines of one exchange: for its first byte, for each further one, and for all of it.

Owns: `Deadlines`, and the error that says which one passed.
Does not own: connecting (the transport has a timeout of its own for that).

Always holds: nothing is waited for beyond the deadline of the whole; time is the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from datetime import timedelta
from functools import lru_cache
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, TypeVar

import aiohttp

from flowcore.context import HttpRequest
from flowcore.errors import FlowError, HttpTimeoutError

T = TypeVar("T")

Phase: TypeAlias = Literal["connect", "first_byte", "idle", "total"]

_SAID: Final[dict[Phase, str]] = {
    "connect": "was not connected within",
    "first_byte": "gave no first byte within",
    "idle": "gave nothing more for",
    "total": "did not finish within",
}


class Deadlines:
    """Of one exchange, which begins now.

    Args:
        request: with its timeouts.
        url: for messages, without secrets.
    """

    __slots__ = (
        "_connect_s", "_first_s", "_idle_s", "_loop", "_method", "_total_s", "_url", "began", "of_driver",
    )  # fmt: skip

    def __init__(self, request: HttpRequest, url: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        self._method: Final = request.method
        self._url: Final = url
        self._total_s: Final = request.timeout.total_seconds()
        self._connect_s: Final = _seconds(request.connect_timeout)
        self._first_s: Final = _seconds(request.first_byte_timeout)
        self._idle_s: Final = _seconds(request.idle_timeout)
        self.of_driver: Final = _of_driver(self._connect_s)
        """What the driver is told of time: how long a connection to one address may take, and no more."""

    @property
    def elapsed_s(self) -> float:
        return self._loop.time() - self.began

    async def first(self, awaited: Awaitable[T]) -> T:
        """Wait for what brings the first byte.

        Raises:
            HttpTimeoutError: it is late.
        """
        if self._first_s is not None and self._first_s < self._total_s:
            return await self._by(awaited, self.began + self._first_s, "first_byte")
        return await self._by(awaited, self.began + self._total_s, "total")

    def exchange(self) -> Exchange:
        """All of it happens in here, and `begun()` is called when the first byte is there.

        Raises:
            HttpTimeoutError: the first byte, or the end, is late.
        """
        ends = self.began + self._total_s
        first_s = self._first_s
        return Exchange(
            self, ends, None if first_s is None or first_s >= self._total_s else self.began + first_s
        )

    async def pieces(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Each piece of a body, in time; closes `chunks`.

        Raises:
            HttpTimeoutError: the first one, a further one, or the end is late.
        """
        async with aclosing(chunks):
            piece = await self.first(_next(chunks))
            while piece is not None:
                yield piece
                piece = await self._further(chunks)

    async def _further(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        ends = self.began + self._total_s
        if self._idle_s is not None:
            idle = self._loop.time() + self._idle_s
            if idle < ends:
                return await self._by(_next(chunks), idle, "idle")
        return await self._by(_next(chunks), ends, "total")

    async def _by(self, awaited: Awaitable[T], at: float, phase: Phase) -> T:
        limit = asyncio.timeout_at(at)
        try:
            async with limit:
                return await awaited
        except TimeoutError as late:
            if isinstance(late, FlowError) or not limit.expired():
                raise
            raise self.late(phase) from None

    def late(self, phase: Phase) -> HttpTimeoutError:
        """The error that says which deadline passed."""
        seconds = {
            "connect": self._connect_s,
            "first_byte": self._first_s,
            "idle": self._idle_s,
            "total": self._total_s,
        }[phase]
        timeout_s = self._total_s if seconds is None else seconds
        effect = "nothing was sent" if phase == "connect" else "it may have had its effect"
        return HttpTimeoutError(
            f"{self._method} {self._url} {_SAID[phase]} {timeout_s:g} s; {effect}",
            method=self._method,
            url=self._url,
            timeout_s=timeout_s,
            phase=phase,
        )


class Exchange:
    """One exchange under its deadlines.

    Args:
        deadlines: name the one that passed.
        ends: when all of it must be over, on the loop's clock.
        first: when its first byte must be there; None: nobody waits for that alone.
    """

    __slots__ = ("_deadlines", "_ends", "_first", "_limit")

    def __init__(self, deadlines: Deadlines, ends: float, first: float | None) -> None:
        self._deadlines: Final = deadlines
        self._ends: Final = ends
        self._first = first
        self._limit: Final = asyncio.timeout_at(ends if first is None else first)

    def begun(self) -> None:
        """The first byte is there."""
        if self._first is not None:
            self._first = None
            self._limit.reschedule(self._ends)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError:
            # It says so only of its own deadline; what the block raised goes on by itself.
            raise self._deadlines.late("total" if self._first is None else "first_byte") from None


@lru_cache(maxsize=64)
def _of_driver(connect_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)
