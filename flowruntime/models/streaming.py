"""A streamed answer that has begun: its first piece, the rest, its end.

Owns: `Begun`, `begin_stream`. Does not own: whether another attempt follows (carrying): none does once a
piece has left.

Always holds: the attempt ends once, with the generator closed; the endpoint's total timeout holds for the
whole stream, without being current across a yield.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from flowcore.errors import FlowError
from flowcore.llm.answers import Assembly, Delta, RateLimits
from flowcore.llm.errors import BrokenStreamError
from flowruntime.models.attempt import Attempt, Place


class Begun:
    """A stream whose first piece is there.

    Args:
        place: where it comes from.
        attempt: under way.
        pieces: the provider's.
    """

    def __init__(self, place: Place, attempt: Attempt, pieces: AsyncGenerator[Delta, None]) -> None:
        self._place = place
        self._attempt = attempt
        self._pieces = pieces
        self.first: Delta | None = None
        """Read and not given yet."""
        self._limits: RateLimits | None = None
        self._deadline = attempt.began + place.total_s
        self.assembly = Assembly()

    async def next(self) -> Delta | None:
        """The next piece; None: that was the last one.

        Raises:
            ProviderError: the stream broke or took too long; the attempt has ended.
        """
        delta, self.first = self.first, None
        if delta is None:
            delta = await self.pull()
        if delta is None:
            self._attempt.end(None, usage=self.assembly.usage, limits=self._limits)
            return None
        self.assembly.add(delta)
        self._limits = delta.limits or self._limits
        return delta

    async def pull(self) -> Delta | None:
        """Read on; on an error the attempt has ended."""
        limit = asyncio.timeout_at(self._deadline)
        try:
            async with limit:
                return await anext(self._pieces, None)
        except asyncio.CancelledError:
            await self.close()
            raise
        except TimeoutError as fault:
            if isinstance(fault, FlowError) or not limit.expired():
                await self._broke(fault)
                raise
            error = self._place.too_slow()
            await self._broke(error)
            raise error from fault
        except BaseException as fault:
            await self._broke(fault)
            raise

    async def _broke(self, error: BaseException) -> None:
        self._attempt.end(error, usage=self.assembly.usage, limits=self._limits)
        await _closed(self._pieces)

    async def close(self) -> None:
        """Nobody wants the rest. Idempotent; nothing happens after the end."""
        await _closed(self._pieces)
        self._attempt.end(None, usage=self.assembly.usage, limits=self._limits, cancelled=True)


async def begin_stream(place: Place, attempt: Attempt, pieces: AsyncGenerator[Delta, None]) -> Begun:
    """Wait for the first piece; with an error before it the attempt has ended, and another one may follow."""
    begun = Begun(place, attempt, pieces)
    first = await begun.pull()
    if first is None:
        error = BrokenStreamError(
            f"{place.endpoint.provider} {place.model!r} ended its stream before the first piece; try again",
            provider=place.endpoint.provider,
            model=place.model,
            status=None,
            request_id=None,
            reason="no piece came",
            received=0,
        )
        attempt.end(error)
        raise error
    begun.first = first
    return begun


async def _closed(pieces: Any) -> None:
    """Close the provider's generator; one that is running its own clean-up is waited for."""
    await pieces.aclose()
