"""Settlement in any order of acknowledgements: each row once, no hole below the prefix, never backwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import EngineError
from flowcore.settlement import Ledger, SettlementTracker


def ignore(ledger: Ledger, rows: Sequence[int]) -> None:
    """Nobody is told."""


class Partition:
    """Frames of one partition, their settled rows, and the rule between them."""

    def __init__(self, sizes: Sequence[int], leaves: int) -> None:
        self.tracker = SettlementTracker()
        self.settled: list[tuple[int, int]] = []
        self.sizes = list(sizes)
        self.ledgers = [Ledger(size, leaves, self._settled, seq) for seq, size in enumerate(sizes)]
        for seq, ledger in enumerate(self.ledgers):
            self.tracker.opened(seq, ledger)

    def _settled(self, ledger: Ledger, rows: Sequence[int]) -> None:
        seq = ledger.owner
        assert isinstance(seq, int)
        self.settled.extend((seq, row) for row in rows)
        self.tracker.settled(len(rows))

    @property
    def committed(self) -> int:
        """Rows before the committed position."""
        prefix = self.tracker.prefix()
        if prefix is None:
            return 0
        seq, row = prefix
        return sum(self.sizes[:seq]) + (self.sizes[seq] if row == -1 else row + 1)

    def expected(self) -> int:
        done = set(self.settled)
        rows = [(seq, row) for seq, size in enumerate(self.sizes) for row in range(size)]
        return next((index for index, row in enumerate(rows) if row not in done), len(rows))


@st.composite
def acknowledgements(draw: st.DrawFn) -> tuple[list[int], int, list[tuple[int, list[int] | None]]]:
    """Frames, leaves, and every leaf's covers, cut into parts and shuffled together."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    leaves = draw(st.integers(1, 3))
    acks: list[tuple[int, list[int] | None]] = []
    for seq, size in enumerate(sizes):
        for _ in range(leaves):
            if draw(st.booleans()):
                acks.append((seq, None))
                continue
            cut = draw(st.integers(0, size))
            rows = draw(st.permutations(range(size)))
            acks.extend((seq, sorted(part)) for part in (rows[:cut], rows[cut:]) if part)
    return sizes, leaves, draw(st.permutations(acks))


@given(case=acknowledgements())
def test_no_hole_never_backwards_each_row_once(
    case: tuple[list[int], int, list[tuple[int, list[int] | None]]],
) -> None:
    sizes, leaves, acks = case
    partition = Partition(sizes, leaves)
    before = committed = 0
    for seq, rows in acks:
        partition.ledgers[seq].cover(rows)
        committed = partition.committed
        assert committed == partition.expected(), "a hole below the position, or a position that lags"
        assert committed >= before, "a committed position went back"
        assert partition.tracker.beyond_prefix == sum(sizes) - committed
        before = committed
    assert committed == sum(sizes)
    assert len(partition.settled) == len(set(partition.settled)) == sum(sizes)
    assert partition.tracker.unsettled == 0
    assert all(ledger.open_rows == 0 and ledger.unsettled() == [] for ledger in partition.ledgers)


def test_all_orders_of_four_rows_in_two_frames() -> None:
    """Small enough to try every order, so nothing is left to a generator."""
    rows = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for order in permutations(rows):
        partition = Partition([2, 2], 1)
        for seq, row in order:
            partition.ledgers[seq].cover([row])
            assert partition.committed == partition.expected()
        assert partition.settled == list(order)


def test_a_row_answered_for_too_often_is_an_engine_error() -> None:
    ledger = Ledger(2, 1, ignore)
    ledger.cover([0])
    with pytest.raises(EngineError, match="row 0 of 2"):
        ledger.cover([0])
    whole = Ledger(2, 1, ignore)
    whole.cover(None)
    with pytest.raises(EngineError, match="more leaves than it has"):
        whole.cover(None)


def test_frames_open_in_order_and_leaves_are_needed() -> None:
    tracker = SettlementTracker()
    with pytest.raises(EngineError, match="frame 1 was opened where 0 was next"):
        tracker.opened(1, Ledger(1, 1, ignore))
    with pytest.raises(EngineError, match="at least one leaf"):
        Ledger(1, 0, ignore)


def test_more_settled_than_opened_is_an_engine_error() -> None:
    tracker = SettlementTracker()
    with pytest.raises(EngineError, match="only 0 were opened"):
        tracker.settled(1)
