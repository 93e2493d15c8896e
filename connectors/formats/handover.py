"""Decoded blocks to rows within credit: one block ahead, fetched in a thread, never lost by a cancelled read.

Owns: `BlockReader`, what every reader of bytes shares.
Does not own: where bytes come from (`_produce` of the subclass) or what they mean (formats' decoders).

Always holds: rows leave in order, once, within credit; a fetch under way when a read is cancelled is
awaited by the next one; blocking calls run in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Final

from connectors.formats.framing import Block
from flowcore.connector import Credit, Position, Rows
from flowcore.errors import ContractError

_NOTHING: Final = Block([], [], [], {}, begin=0)


class BlockReader(ABC):
    """A `Reader` over blocks that a thread produces.

    Holds: one block, so what one `_produce` reads, decoded.
    """

    def __init__(self, *, executor: Executor | None = None) -> None:
        self._executor = executor
        self._block = _NOTHING
        self._taken = 0
        self._fetch: asyncio.Future[Block | None] | None = None
        self._ended = False
        self._closed = False

    @abstractmethod
    def _produce(self) -> Block | None:
        """The next block, possibly empty; None at the end. Runs in a thread."""

    @abstractmethod
    def _release(self) -> None:
        """Close what is open. Runs in a thread, once, with no `_produce` under way."""

    async def _pause(self) -> bool:
        """After an empty block; False: nothing will follow."""
        return True

    def _positions(self, block: Block, first: int, stop: int) -> Sequence[Position] | None:
        """The position after each of the rows `first` to `stop` of a block; None: rows never come again."""
        del block, first, stop
        return None

    async def read(self, credit: Credit) -> Rows[Any] | None:
        """At most `credit.rows` rows, after the first `credit.max_bytes`; waits for one. None: the end."""
        if credit.rows < 1:
            raise ContractError(f"read needs credit for at least one row, got {credit!r}", credit=credit.rows)
        while self._taken >= len(self._block.values):
            if self._closed:
                raise ContractError(f"{self!r} is closed and was read; open the partition again")
            if self._ended or not await self._advance():
                self._ended = True
                return None
        return self._hand_over(credit)

    async def commit(self, position: Position) -> None:
        """Nothing to tell anyone: the runtime keeps the positions."""
        del position

    async def close(self) -> None:
        """Wait for the fetch under way, then close; what it brought comes again at the next resume."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        self._interrupt()
        fetch = self._fetch
        if fetch is not None:
            await asyncio.wait([fetch])
            if not fetch.cancelled():
                fetch.exception()  # nobody will ask for its rows or its failure any more
        self._block, self._taken = _NOTHING, 0
        await loop.run_in_executor(self._executor, self._release)

    def _interrupt(self) -> None:  # noqa: B027 - only a reader that waits has something to do
        """Make a `_produce` that waits return soon."""

    async def _advance(self) -> bool:
        if self._fetch is None:
            self._fetch = asyncio.get_running_loop().run_in_executor(self._executor, self._produce)
        await asyncio.wait(
            [self._fetch]
        )  # when cancelled here, the fetch goes on and the next read takes its rows
        fetch, self._fetch = self._fetch, None
        block = fetch.result()
        if block is None:
            return False
        self._block, self._taken = block, 0
        return bool(block.values) or await self._pause()

    def _hand_over(self, credit: Credit) -> Rows[Any]:
        block, first = self._block, self._taken
        stop = min(first + credit.rows, len(block.values))
        begin = block.ends[first - 1] if first else block.begin
        if credit.max_bytes is not None:
            stop = max(first + 1, bisect_right(block.ends, begin + credit.max_bytes, first, stop))
        self._taken = stop
        whole = first == 0 and stop == len(block.values)
        values = block.values if whole else block.values[first:stop]
        errors = {index - first: error for index, error in block.errors.items() if first <= index < stop}
        positions = self._positions(block, first, stop)
        return Rows(
            values,
            next=None if positions is None else positions[-1],
            positions=positions,
            errors=errors or None,
            nbytes=block.ends[stop - 1] - begin,
        )
