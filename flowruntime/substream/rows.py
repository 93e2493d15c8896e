"""The streams of one chain, and the rows they keep unsettled.

Owns: `RowStreams`: which stream belongs to which row, when nobody will read one any more, whose call reads
what.
Does not own: producing (production), gathering at the ends of a workflow (ends), settlement itself
(flowcore.settlement).

The rule: a row that every leaf has covered is worked on by no node any more, so nobody will begin to read a
stream of it; what is not over then is cancelled, unless an end of the workflow is gathering a stream of that
row. The row settles when the last of its streams is over and cleaned up.

Holds: one entry per row with an unfinished stream, bounded as rows in flight are. Loop thread only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flowcore.values import Stream, streams_in
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.substream.ends import Ends
from flowruntime.substream.live import production_of
from flowruntime.substream.production import Production
from flowruntime.substream.reader import CALLER

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.substream.host import Place, StreamHost
    from flowruntime.substream.reader import Seat


class HeldRow:
    """A row that its streams, or their gathering, keep unsettled."""

    __slots__ = ("_covered", "gathering", "streams")

    def __init__(self) -> None:
        self._covered = False
        self.streams: set[Production[Any]] = set()
        """Those not over."""
        self.gathering = 0
        """Ends of the workflow that read streams for their results."""

    @property
    def is_free(self) -> bool:
        return not self.streams and not self.gathering

    def covered(self) -> None:
        """No node works on the row any more."""
        self._covered = True
        self.tidy()

    def tidy(self) -> None:
        """Cancel what nobody will read."""
        if self._covered and not self.gathering:
            for production in list(self.streams):
                production.cancel()


class RowStreams:
    """Made when a node of the chain makes its first stream."""

    def __init__(self, kernel: StreamHost) -> None:
        self._kernel = kernel
        self._live: set[Production[Any]] = set()
        self._rows: dict[Place, HeldRow] = {}
        self._place_of: dict[Production[Any], Place] = {}
        self._reading: dict[object, dict[Seat, Production[Any]]] = {}
        """By the task whose call they are used in: readers, and what they read."""
        self._made: dict[object, set[Production[Any]]] = {}
        """By the task whose call it is: streams made in it that are not over."""
        self._maker_of: dict[Production[Any], object] = {}
        self.ends = Ends(kernel, self)

    # --- rows -----------------------------------------------------------------------------------------

    def bind(self, production: Production[Any], opened: Opened, row: int) -> None:
        """A node has made a stream in its call for a row; one nobody can read is cancelled at once."""
        kernel = self._kernel
        production.watcher = self
        self._live.add(production)
        if kernel.recording:
            kernel.execution_of(opened, row).has_streams = True
        self._note_maker(production)
        over = kernel.closed or kernel.stopped(opened, row) is not None
        if over or not self._hold(production, opened, row):
            production.cancel()

    def _note_maker(self, production: Production[Any]) -> None:
        """In whose call it is made, where that is a call with an end of its own: not in a fused function."""
        caller = CALLER.get()
        if caller is not None and asyncio.current_task() is not None:
            self._maker_of[production] = caller
            self._made.setdefault(caller, set()).add(production)

    def _hold(self, production: Production[Any], opened: Opened, row: int) -> bool:
        held = self.held(opened, row)
        if held is None:
            return False
        held.streams.add(production)
        self._place_of[production] = (opened, row)
        held.tidy()
        return True

    def held(self, opened: Opened, row: int) -> HeldRow | None:
        """The entry of a row, made on first use; None: the row is settled."""
        found = self._rows.get((opened, row))
        if found is None:
            found = HeldRow()
            if not opened.ledger.hold(row, found):
                return None
            self._rows[opened, row] = found
        return found

    def place_of(self, stream: Stream[Any]) -> Place | None:
        """The row a stream keeps unsettled; None when it is over, or of another chain."""
        production = production_of(stream)
        return None if production is None else self._place_of.get(production)

    def free(self, place: Place) -> None:
        """Let a row settle if nothing keeps it any more; cancel what nobody will read."""
        held = self._rows[place]
        if not held.is_free:
            held.tidy()
            return
        del self._rows[place]
        if not self._kernel.closed:
            opened, row = place
            opened.ledger.let_go(row)

    def gather(self, place: Place) -> bool:
        """An end of the workflow reads streams of a row, which settles afterwards. False: it has settled."""
        held = self.held(*place)
        if held is not None:
            held.gathering += 1
        return held is not None

    def gathered(self, place: Place) -> None:
        """An end of the workflow has read what it wanted of a row, or could not."""
        self._rows[place].gathering -= 1
        self.free(place)

    def move(self, value: object, source: Place, target: Place, *, shared: bool) -> None:
        """The streams of a value that belong to row `source` belong to `target` from now on.

        Args:
            value: what goes on in the row `target`.
            source: which is about to end, or which `target` was split from.
            target: not settled.
            shared: shared ones, too; else they stay, because other rows may read them.
        """
        if source not in self._rows:
            return
        for stream in streams_in(value):
            production = production_of(stream)
            if production is None or self._place_of.get(production) != source:
                continue
            if (shared or not stream.shared) and self._hold(production, *target):
                self._rows[source].streams.discard(production)
        if source in self._rows:
            self.free(source)

    # --- what productions tell ------------------------------------------------------------------------

    def reads(self, production: Production[Any], seat: Seat) -> None:
        self._reading.setdefault(seat.caller, {})[seat] = production

    def left(self, seat: Seat) -> None:
        others = self._reading.get(seat.caller)
        if others is not None and others.pop(seat, None) is not None and not others:
            del self._reading[seat.caller]

    def over(self, production: Production[Any]) -> None:
        """A stream is over: its row may settle."""
        self._live.discard(production)
        self._forget_maker(production)
        self.call_ended(production.task)
        place = self._place_of.pop(production, None)
        if place is None:
            return
        self._rows[place].streams.discard(production)
        try:
            self.free(place)
        except Exception as error:  # noqa: BLE001 - the engine's own; told in a callback of the loop
            self._kernel.crash(error)

    def _forget_maker(self, production: Production[Any]) -> None:
        maker = self._maker_of.pop(production, None)
        others = self._made.get(maker)
        if others is not None:
            others.discard(production)
            if not others:
                del self._made[maker]

    def call_ended(self, caller: object, *, failed: bool = False) -> None:
        """A call of user code, in that task, is over: nobody waits for the readers it has not handed on.

        Args:
            caller: the task.
            failed: its result does not count, so nobody will read what it has made.
        """
        for seat, production in self._reading.pop(caller, {}).items():
            production.park(seat)
        for production in self._made.pop(caller, ()):
            self._maker_of.pop(production, None)
            if failed:
                production.cancel()

    # --- taking down ----------------------------------------------------------------------------------

    def cancel_execution(self, root: Opened, row: int) -> None:
        """Cancel the streams of every row that descends from one root record."""
        for (opened, at), held in list(self._rows.items()):
            if opened.root(at) == (root, row):
                for production in list(held.streams):
                    production.cancel()

    def close(self) -> None:
        """The chain is taken down: every producer is closed."""
        self.ends.close()
        for production in list(self._live):
            production.cancel()

    async def until_quiet(self) -> None:
        """After `close`: until every producer is done, for at most `PATIENCE_S`."""
        await self.ends.until_quiet()
        tasks = [production.task for production in self._live if production.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)

    def statistics(self) -> dict[str, int]:
        return {
            "live": len(self._live),
            "open": sum(production.state == "open" for production in self._live),
            "readers": sum(len(production.seats) for production in self._live),
            "ready_items": sum(production.ready for production in self._live),
            "rows_held": len(self._rows),
        }
