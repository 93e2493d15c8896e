"""What all stage operators share: their edges, how a part leaves, how signals of several inputs become one.

Owns: `StageOperator`, `Inputs`. Does not own: any stage kind.

Always holds: each operator covers each row exactly once on each of its edges; a stage without edges covers
its rows at the ledger, because they end there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.errors import EngineError
from flowcore.frame import END, Barrier, End, Frame, Opened, Signal, Watermark

if TYPE_CHECKING:
    from flowcore.definition import NodeDefinition
    from flowcore.frame import Failure
    from flowruntime.compile.plan import Stage
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.operators.edge import Edge
    from flowruntime.operators.kernel import Kernel

Item = Frame[Any] | Signal
Inlet = Callable[[Item], None]


class StageOperator:
    """One stage of one chain. Subclasses implement `rows` (a frame came in) and may override `signal`."""

    def __init__(self, kernel: Kernel, stage: Stage) -> None:
        self.kernel = kernel
        self.stage = stage
        self.edges: list[Edge] = []
        self.inputs = Inputs(max(1, len(stage.slots)))
        self.ended = False
        self.barriers = 0
        """How many have passed."""
        self._behind: dict[int, deque[Item]] = {}

    def inlet(self, slot: int) -> Inlet:
        """What the edge into input `slot` calls."""

        def receive(item: Item) -> None:
            if self._behind and slot in self._behind:
                self._behind[slot].append(item)
            elif type(item) is Frame:
                self.rows(slot, item)
            else:
                self._receive(slot, item)

        return receive

    def _receive(self, slot: int, item: Item) -> None:
        if type(item) is Frame:
            self.rows(slot, item)
            return
        assert not isinstance(item, Frame)  # noqa: S101 - for the type checker: type() above does not narrow
        several = len(self.stage.slots) > 1
        if several and isinstance(item, Barrier):
            self.hold(slot)  # rows behind a barrier wait until every input has brought it
        for passed in self.inputs.receive(slot, item):
            self.signal(passed)
            if several and isinstance(passed, Barrier):
                self.let_go()

    def hold(self, slot: int) -> None:
        """Keep back what comes on an input until `let_go`; what is kept is unsettled, so credit bounds it."""
        self._behind.setdefault(slot, deque())

    def let_go(self) -> None:
        """Take in what was kept back, up to where it is to be kept back again."""
        held, self._behind = self._behind, {}
        for slot, items in held.items():
            while items and slot not in self._behind:
                self._receive(slot, items.popleft())
            if items:
                self._behind[slot].extend(items)

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        """A part of a frame on input `slot`."""
        raise NotImplementedError

    def signal(self, signal: Signal) -> None:
        """A signal that has come on all inputs. Passed on at once; stages that hold rows override this."""
        self.emit_signal(signal)

    def emit_signal(self, signal: Signal) -> None:
        if isinstance(signal, End):
            self.ended = True
        elif isinstance(signal, Barrier):
            self.barriers += 1
        for edge in self.edges:
            edge.emit(signal)

    def emit(self, frame: Frame[Any]) -> None:
        """A part leaves on every edge; without edges its rows end here."""
        edges = self.edges
        if not edges:
            frame.opened.ledger.cover(frame.covers)
            return
        for edge in edges:
            edge.emit(frame)

    def emit_absent(self, opened: Opened, rows: list[int], failed: dict[int, Failure] | None) -> None:
        """Cover rows that have no value here."""
        if rows:
            self.emit(Frame(opened, [], [], rows, failed))

    def cancel_execution(self, root: Opened, row: int) -> None:
        """Take out whatever waits or runs here for one root record; its rows are answered for soon."""

    async def until_quiet(self) -> None:
        """After `close`: until nothing of this stage runs any more."""

    def close(self) -> None:
        """The chain is taken down: drop what is held. Idempotent."""

    def statistics(self) -> dict[str, Any]:
        """Live figures: `in_flight`, `queued`, ..."""
        return {"in_flight": 0}


class Inputs:
    """Signals of several inputs, combined: watermarks by minimum, barriers and End once all inputs have them.

    An input that has ended holds nothing up any more.
    """

    __slots__ = ("_barriers", "_ended", "_passed", "_passed_barrier", "_watermarks")

    def __init__(self, count: int) -> None:
        self._watermarks: list[float | None] = [None] * count
        self._barriers: list[int] = [0] * count
        self._ended: list[bool] = [False] * count
        self._passed: float | None = None
        self._passed_barrier = 0

    def receive(self, slot: int, signal: Signal) -> Sequence[Signal]:
        """The combined signals to pass on now; none while another input has yet to catch up."""
        if len(self._ended) == 1:
            return (signal,)
        if isinstance(signal, Watermark):
            self._watermarks[slot] = signal.time_s
            return self._lowest()
        if isinstance(signal, Barrier):
            self._barriers[slot] = signal.epoch
            return self._aligned()
        self._ended[slot] = True
        return (END,) if all(self._ended) else (*self._aligned(), *self._lowest())

    def _aligned(self) -> Sequence[Signal]:
        lowest = min(epoch for epoch, ended in zip(self._barriers, self._ended, strict=True) if not ended)
        if lowest <= self._passed_barrier:
            return ()
        self._passed_barrier = lowest
        return (Barrier(lowest),)

    def _lowest(self) -> Sequence[Signal]:
        known = [time for time, ended in zip(self._watermarks, self._ended, strict=True) if not ended]
        if any(time is None for time in known):
            return ()
        lowest = min(time for time in known if time is not None)
        if self._passed is not None and lowest <= self._passed:
            return ()
        self._passed = lowest
        return (Watermark(lowest),)


def node_of(stage: Stage) -> ResolvedNode:
    """The node of a stage that runs exactly one.

    Raises:
        EngineError: it runs none, or several fused into one.
    """
    if stage.node is None:
        raise EngineError(f"stage {stage.id!r} ({stage.kind}) has no node of its own")
    return stage.node


def by_port(definition: NodeDefinition, value: Any) -> Any:
    """What a node was given as people read it: the value, or by port where it has several."""
    ports = definition.inputs
    if len(ports) == 1 or not isinstance(value, tuple):
        return value
    return {port.name: each for port, each in zip(ports, value, strict=False)}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - values of any type


def covered_rows(frame: Frame[Any]) -> list[int]:
    """The rows a part answers for, as a list."""
    return list(frame.covered)


def absent_rows(frame: Frame[Any]) -> list[int]:
    """The rows a part covers without a value."""
    if frame.rows is None:
        return []
    if frame.covers is None:
        if len(frame.rows) == frame.opened.size:
            return []
        present = set(frame.rows)
        return [row for row in range(frame.opened.size) if row not in present]
    if len(frame.rows) == len(frame.covers):
        return []
    present = set(frame.rows)
    return [row for row in frame.covers if row not in present]
