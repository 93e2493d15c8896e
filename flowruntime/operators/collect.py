"""The collect stage: the rows of one record become one list, in the record's own row again.

    children   a1 a2 b1 a3 | a has 3, b has 1
    rows out   b:[b1]  a:[a1 a2 a3]

Emits when      every child of a parent is covered here; the list is in the children's order.
Backpressures   by itself never; a child is answered for when it arrives, its value is then the parent's
                charge, bounded by `max_children` and `max_output_bytes`.
Completes when  the input has ended and every family is closed.
Fails when      never: a parent with a failed child is skipped with that cause, and one whose list, or what
                the node makes of it, is larger than `max_output_bytes` fails.
Holds           the values of families not yet complete, at most `max_output_bytes` of each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.frame import Failure, Frame, Opened, Signal
from flowcore.sizes import ENTRY, size_up_to
from flowruntime.operators.base import StageOperator, absent_rows, node_of
from flowruntime.operators.cause import first_cause
from flowruntime.operators.oversize import bound_of

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.family import Family
    from flowruntime.operators.kernel import Kernel
    from flowruntime.substream.rows import RowStreams


Reduce = Callable[[list[Any], Sequence[tuple[Opened, int]]], Any]
"""Makes one value of several; the second argument names the rows it is made for."""


class _Basket:
    __slots__ = ("covered", "failure", "nbytes", "values")

    def __init__(self) -> None:
        self.covered = 0
        self.nbytes = 0
        """Of the list so far; beyond what is allowed nothing more is kept."""
        self.values: list[tuple[int, int, Any]] = []
        self.failure: Failure | None = None


class _Made:
    """What a node made of a list, or failed with."""

    __slots__ = ("error", "recalled", "started", "value")

    def __init__(
        self,
        value: Any = None,
        error: BaseException | None = None,
        *,
        started: float = 0.0,
        recalled: bool = False,
    ) -> None:
        self.value = value
        self.error = error
        self.started = started
        self.recalled = recalled


class CollectOperator(StageOperator):
    """`reduce(items, members)` makes the value of the parent's row, which is the only member."""

    def __init__(self, kernel: Kernel, stage: Stage, reduce: Reduce) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self._reduce = reduce
        self._bound = bound_of(self.node)
        self._baskets: dict[Family, _Basket] = {}
        self._later: deque[tuple[int, Callable[[], None]]] = deque()
        """What was told ahead of a barrier."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
        opened = frame.opened
        families: Sequence[Family] = opened.families
        touched: dict[Family, _Basket] = {}
        if self.kernel.streams is not None:
            self._move_streams(self.kernel.streams, frame)
        for row, value in zip(frame.present, frame.values, strict=True):
            basket = self._basket(families[row], touched)
            basket.covered += 1
            self._keep(basket, families[row], (opened.seq, row, value))
        failed = frame.failed or {}
        for row in absent_rows(frame):
            basket = self._basket(families[row], touched)
            basket.covered += 1
            basket.failure = first_cause(basket.failure, failed.get(row), self.node.id)
        for family, basket in touched.items():
            self._try(family, basket)
        opened.ledger.cover(frame.covers)

    def _move_streams(self, streams: RowStreams, frame: Frame[Any]) -> None:
        """Streams of children that end here go on in the parent's list."""
        opened = frame.opened
        for row, value in zip(frame.present, frame.values, strict=True):
            family: Family = opened.families[row]
            streams.move(value, (opened, row), (family.parent, family.row), shared=True)

    def family_known(self, family: Family, barriers: int) -> None:
        """No further child of `family` will come.

        Args:
            family: told by the stage that opened it, past the edges.
            barriers: how many had passed there; those still on their way here go first.
        """
        if barriers > self.barriers:
            self._later.append((barriers, lambda: self.family_known(family, barriers)))
        elif family.total == 0 or family in self._baskets:
            self._try(family, self._basket(family, {}))

    def parent_absent(
        self, opened: Opened, rows: list[int], failed: Mapping[int, Failure], barriers: int
    ) -> None:
        """Parent rows that never came to be expanded are absent here, too."""
        if barriers > self.barriers:
            self._later.append((barriers, lambda: self.parent_absent(opened, rows, failed, barriers)))
            return
        reasons = {row: failed[row] for row in rows if row in failed}
        self.emit_absent(opened, rows, reasons or None)

    def signal(self, signal: Signal) -> None:
        self.emit_signal(signal)
        while self._later and self._later[0][0] <= self.barriers:
            self._later.popleft()[1]()

    def _basket(self, family: Family, touched: dict[Family, _Basket]) -> _Basket:
        basket = self._baskets.get(family)
        if basket is None:
            basket = self._baskets[family] = _Basket()
        touched[family] = basket
        return basket

    def _keep(self, basket: _Basket, family: Family, item: tuple[int, int, Any]) -> None:
        """Add a child's value, or let go of the whole list once it is larger than allowed.

        The child is settled, so that its value is the parent's charge from now on.
        """
        most = self._bound.most
        nbytes = ENTRY + size_up_to(item[2], most)
        basket.nbytes += nbytes
        if basket.nbytes > most:
            basket.values.clear()
            return
        basket.values.append(item)
        self.kernel.charge(family.parent, family.row, nbytes, instead=False)

    def _made(self, family: Family, basket: _Basket) -> Any:
        """What the node makes of the list.

        Raises:
            LimitExceededError: the list, or what was made of it, is larger than allowed.
            Exception: the node's own.
        """
        if basket.nbytes > self._bound.most:
            raise self._bound.exceeded(basket.nbytes, "a list")
        basket.values.sort(key=lambda item: item[:2])
        items = [value for _, _, value in basket.values]
        value = self._reduce(items, ((family.parent, family.row),))
        if value is not items:
            size, linear = self._bound.size(value), self.stage.scope.linear
            more = size if linear else max(0, size - basket.nbytes)
            self.kernel.charge(family.parent, family.row, more, instead=linear)
        return value

    def _try(self, family: Family, basket: _Basket) -> None:
        if family.total is None or basket.covered < family.total or family not in self._baskets:
            return
        del self._baskets[family]
        failure = first_cause(basket.failure, family.failure, self.node.id)
        if failure is not None:
            self.emit(Frame(family.parent, [], [], [family.row], {family.row: failure}))
            return
        kernel, node_id = self.kernel, self.node.id
        journal = kernel.journal
        found = None if journal is None else journal.recall(node_id, family.parent, family.row)
        if found is not None:
            self._leave(family, basket, _Made(found.value, found.error, recalled=True))
            return
        started = kernel.worker.telemetry.node_started(kernel, node_id, family.parent, family.row)
        made = _Made(started=started)
        try:
            made.value = self._made(family, basket)
        except BaseException as error:  # noqa: BLE001 - user code; it becomes the row's failure
            made.error = error
        if journal is None:
            self._leave(family, basket, made)
            return
        journal.keep(
            node_id,
            family.parent,
            family.row,
            lambda: self._leave(family, basket, made),
            value=made.value,
            error=made.error,
            into=made,
        )

    def _leave(self, family: Family, basket: _Basket, made: _Made) -> None:
        """The parent's row goes on with what the node made, which is durable where it has to be."""
        kernel, node_id = self.kernel, self.node.id
        if kernel.closed:
            return
        fallback = self.node.fallback
        if made.error is not None and fallback is not None:
            value = kernel.replace(
                node_id,
                fallback,
                family.parent,
                family.row,
                made.error,
                started=made.started,
                recalled=made.recalled,
            )
            self.emit(Frame(family.parent, [value], [family.row], [family.row]))
            return
        if made.error is not None:
            items = [value for _, _, value in basket.values]
            failure = kernel.failed(
                node_id, family.parent, family.row, made.error, value=items, recalled=made.recalled
            )
            self.emit(Frame(family.parent, [], [], [family.row], {family.row: failure}))
            return
        kernel.counts[node_id].completed += not made.recalled
        kernel.completed(node_id, family.parent, family.row, made.value, made.started, recalled=made.recalled)
        self.emit(Frame(family.parent, [made.value], [family.row], [family.row]))

    def close(self) -> None:
        self._baskets.clear()
        self._later.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": sum(len(basket.values) for basket in self._baskets.values())}
