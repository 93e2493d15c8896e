"""What stands before an asynchronous generator: breaker and rates as it begins, permits while it computes.

Owns: `Turnstile`: waiting in line for what one node is subject to.
Does not own: the limits (permits), breakers and rates (resilience.guard), the generators (operators).

Always holds: permits are taken all or none, only while a generator computes, and never while waiting for a
breaker or a rate; within a lane first come first served, lanes (chains) round robin; whoever is cancelled
while it waits, or as its turn comes, keeps none. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from flowcore.errors import CircuitOpenError, LimitExceededError

if TYPE_CHECKING:
    from flowruntime.flowcontrol.permits import Permits
    from flowruntime.resilience.guard import Call, Guard


class Turnstile:
    """Of one node, for all chains.

    Args:
        permits: of the limits it is subject to.
        guard: its breaker, rates and retry budget; None: it has none.
    """

    def __init__(self, permits: Permits, guard: Guard | None = None) -> None:
        self._permits = permits
        self.guard = guard
        self._beginning: deque[tuple[Call, asyncio.Future[None]]] = deque()
        """Those that wait for breaker or rates."""
        self._lanes: dict[object, deque[asyncio.Future[None]]] = {}
        """Those with calls that wait, in the order of their turns."""
        self._wake = self._let_in
        self._wake_guard = self._let_begin
        self.in_flight = 0
        self.peak = 0

    # --- beginning ------------------------------------------------------------------------------------

    async def begin(self, call: Call) -> None:
        """Wait until breaker and rates let one attempt begin.

        Raises:
            CircuitOpenError: it is not to be made.
            LimitExceededError: no rate will ever let it.
        """
        if self.guard is None:
            return
        if not self._beginning and self._may_begin(call, self.guard):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (call, turn)
        self._beginning.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._beginning:
                self._beginning.remove(entry)
            raise

    def _may_begin(self, call: Call, guard: Guard) -> bool:
        now = asyncio.get_running_loop().time()
        refused = guard.refusal(call, now)
        if refused is not None:
            raise refused
        if not guard.may_begin(call, 1, self._wake_guard, now):
            return False
        guard.begin(call, 1, now)
        return True

    def _let_begin(self) -> None:
        """Let those begin that may now."""
        while self._beginning and self.guard is not None:
            call, turn = self._beginning[0]
            try:
                if not turn.done() and not self._may_begin(call, self.guard):
                    return
            except (CircuitOpenError, LimitExceededError) as error:
                turn.set_exception(error)
            self._beginning.popleft()
            if not turn.done():
                turn.set_result(None)

    def ended(self, call: Call) -> None:
        """It has ended, all its attempts included: breaker and probe are told."""
        if self.guard is not None and call.ticket is not None:
            self.guard.ended(call, asyncio.get_running_loop().time())

    # --- computing ------------------------------------------------------------------------------------

    async def enter(self, lane: object) -> None:
        """Wait for one permit of each limit; `leave` when the call has answered.

        Args:
            lane: of the caller; whoever shares it waits in the same line.
        """
        if not self._lanes and self._permits.take(self._wake):
            self._count()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(lane, turn)
            else:  # its turn had come
                self.leave()
            raise

    def leave(self) -> None:
        """The call has answered."""
        self.in_flight -= 1
        self._permits.give_back()

    def _count(self) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def _let_in(self) -> None:
        """Give turns while permits last."""
        while self._lanes and self._permits.take(self._wake):
            turn = self._next()
            if turn is None:
                self._permits.give_back()
                return
            self._count()
            turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """Whose turn it is: the first in the line of the first lane, which goes to the end of the lanes."""
        while self._lanes:
            lane = next(iter(self._lanes))
            line = self._lanes.pop(lane)
            turn = line.popleft()
            if line:
                self._lanes[lane] = line
            if not turn.done():
                return turn
        return None

    def _forget(self, lane: object, turn: asyncio.Future[None]) -> None:
        line = self._lanes.get(lane)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lanes[lane]

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "peak": self.peak,
            "queued": len(self._beginning) + sum(map(len, self._lanes.values())),
            **({} if self.guard is None else self.guard.statistics()),
        }
