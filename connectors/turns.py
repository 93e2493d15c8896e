"""Blocking calls of a connector in a thread: one at a time, and none left behind by a cancellation.

Owns: `Turns`. Does not own: what is called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


class Turns:
    """Calls that must not overlap.

    Holds: the callers that wait for their turn.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, call: Callable[[], R]) -> R:
        """Run `call` in a thread. Cancelled, it is over all the same when this raises: a thread goes on."""
        async with self._turn:
            work = asyncio.ensure_future(asyncio.to_thread(call))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await _over(work)
                raise


async def _over(work: asyncio.Future[Any]) -> None:
    """Until `work` is done, whatever is cancelled meanwhile; its result or error is of no interest then."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    if not work.cancelled():
        work.exception()
