"""Settlement in any order of acknowledgements: each row once, no hole below the prefix, never backwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
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


@pytest.mark.long
@pytest.mark.timeout(600)
@settings(max_examples=10_000)
@given(case=acknowledgements(), at=st.integers(0, 30), leaves_after=st.integers(1, 3))
def test_ten_thousand_crashes_lose_no_row_and_repeat_none_below_the_position(
    case: tuple[list[int], int, list[tuple[int, list[int] | None]]], at: int, leaves_after: int
) -> None:
    """What was settled beyond the committed position comes again; what lies before it never does."""
    sizes, leaves, acks = case
    total = sum(sizes)
    numbers = [(seq, row) for seq, size in enumerate(sizes) for row in range(size)]
    before = Partition(sizes, leaves)
    for seq, rows in acks[:at]:
        before.ledgers[seq].cover(rows)
    committed = before.committed
    done = {numbers.index(row) for row in before.settled}
    assert done >= set(range(committed)), "a position beyond what is settled"
    if committed == total:
        return
    after = Partition([total - committed], leaves_after)
    for _ in range(leaves_after):
        after.ledgers[0].cover(None)
    again = {committed + row for _, row in after.settled}
    assert done | again == set(range(total)), "lost"
    assert min(again) == committed, "a row below the position came again"
    assert len(done & again) == before.tracker.beyond_prefix - before.tracker.unsettled, "repeats are counted"


@given(case=acknowledgements(), data=st.data())
def test_a_row_something_is_expected_for_is_settled_when_everything_else_is_and_it_has_arrived(
    case: tuple[list[int], int, list[tuple[int, list[int] | None]]], data: st.DataObject
) -> None:
    """Whenever it is expected before the row is settled, and whenever it arrives; other rows go on."""
    sizes, leaves, acks = case
    partition = Partition(sizes, leaves)
    expected: list[tuple[int, int]] = []
    for seq, rows in acks:
        open_rows = [(at, row) for at, ledger in enumerate(partition.ledgers) for row in ledger.unsettled()]
        if open_rows and data.draw(st.booleans()):
            expected.append(data.draw(st.sampled_from(open_rows)))
            partition.ledgers[expected[-1][0]].expect(expected[-1][1])
        partition.ledgers[seq].cover(rows)
        assert not set(expected) & set(partition.settled), "a row was settled and something is on its way"
        if expected and data.draw(st.booleans()):
            at, row = expected.pop(data.draw(st.integers(0, len(expected) - 1)))
            partition.ledgers[at].arrived(row)
        assert partition.committed == partition.expected()
    everything = {(at, row) for at, size in enumerate(sizes) for row in range(size)}
    assert set(partition.settled) == everything - set(expected)
    for at, row in expected:
        partition.ledgers[at].arrived(row)
    assert sorted(partition.settled) == sorted(everything)
    assert partition.committed == sum(sizes)


def test_nothing_is_expected_for_a_row_that_is_settled_or_not_there_and_nothing_else_arrives() -> None:
    ledger = Ledger(2, 1, ignore)
    ledger.cover([0])
    for row in (0, 2, -1):
        with pytest.raises(EngineError, match=f"nothing can be expected for row {row} of 2"):
            ledger.expect(row)
    with pytest.raises(EngineError, match="arrived for row 1 of 2, but nothing was expected"):
        ledger.arrived(1)
    ledger.expect(1)
    ledger.cover([1])
    assert not ledger.is_settled(1)
    ledger.arrived(1)
    assert ledger.is_settled(1)


def test_a_row_may_be_held_and_expected_for_and_settles_with_the_last_of_both() -> None:
    for first in ("hold", "expect"):
        settled: list[int] = []
        ledger = Ledger(2, 1, lambda _, rows: settled.extend(rows))  # noqa: B023 - called in this turn
        holding = Holding()
        ledger.hold(0, holding)
        ledger.expect(0)
        ledger.cover(None)
        assert settled == [1]
        assert holding.told == 1
        ledger.expect(0)  # a Stream of it fails after every leaf has covered the row
        ledger.arrived(0)
        if first == "hold":
            ledger.let_go(0)
            assert settled == [1]
            ledger.arrived(0)
        else:
            ledger.arrived(0)
            assert settled == [1]
            ledger.let_go(0)
        assert settled == [1, 0]
        assert holding.told == 1


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


# --- rows that are held -------------------------------------------------------------------------------


class Holding:
    """Counts how often it is told that nobody will ask for what it holds."""

    def __init__(self) -> None:
        self.told = 0

    def covered(self) -> None:
        self.told += 1


def test_a_held_row_settles_when_it_is_let_go() -> None:
    settled: list[int] = []
    ledger = Ledger(3, 2, lambda _, rows: settled.extend(rows))
    holding = Holding()
    assert ledger.hold(1, holding)
    ledger.cover(None)
    assert holding.told == 0, "another leaf has yet to cover it"
    ledger.cover(None)
    assert holding.told == 1
    assert settled == [0, 2]
    assert ledger.unsettled() == [1]
    assert ledger.open_rows == 1
    ledger.let_go(1)
    assert settled == [0, 2, 1]
    assert ledger.open_rows == 0


def test_a_row_let_go_before_it_is_covered_settles_when_it_is_covered() -> None:
    settled: list[int] = []
    ledger = Ledger(2, 1, lambda _, rows: settled.extend(rows))
    holding = Holding()
    ledger.hold(0, holding)
    ledger.let_go(0)
    assert settled == []
    ledger.cover(None)
    assert settled == [0, 1]
    assert holding.told == 0


def test_nobody_is_told_of_no_rows() -> None:
    """A request ends when it is told of its row; that must not be before."""
    told: list[Sequence[int]] = []
    ledger = Ledger(1, 1, lambda _, rows: told.append(rows))
    ledger.hold(0, Holding())
    ledger.cover(None)
    assert told == []
    ledger.let_go(0)
    assert told == [(0,)]


def test_a_settled_row_cannot_be_held() -> None:
    ledger = Ledger(2, 1, ignore)
    ledger.cover([0])
    assert not ledger.hold(0, Holding())
    assert ledger.hold(1, Holding())


def test_a_row_has_one_holder_who_lets_go_once() -> None:
    ledger = Ledger(1, 1, ignore)
    holding = Holding()
    assert ledger.hold(0, holding)
    assert ledger.hold(0, holding)
    with pytest.raises(EngineError, match="held already"):
        ledger.hold(0, Holding())
    ledger.let_go(0)
    with pytest.raises(EngineError, match="nothing held it"):
        ledger.let_go(0)


def test_a_holder_may_let_go_while_it_is_told() -> None:
    settled: list[int] = []
    ledger = Ledger(2, 1, lambda _, rows: settled.extend(rows))

    class Gone:
        def covered(self) -> None:
            ledger.let_go(1)

    ledger.hold(1, Gone())
    ledger.cover(None)
    assert sorted(settled) == [0, 1]
    assert ledger.open_rows == 0


@given(case=acknowledgements(), data=st.data())
def test_held_rows_leave_no_hole_and_settle_once_whoever_comes_last(
    case: tuple[list[int], int, list[tuple[int, list[int] | None]]], data: st.DataObject
) -> None:
    sizes, leaves, acks = case
    partition = Partition(sizes, leaves)
    places = [(seq, row) for seq, size in enumerate(sizes) for row in range(size)]
    held = {place: Holding() for place in data.draw(st.lists(st.sampled_from(places), unique=True))}
    for (seq, row), holding in held.items():
        assert partition.ledgers[seq].hold(row, holding)
    steps: list[tuple[str, int, list[int] | None]] = data.draw(
        st.permutations(
            [("cover", seq, rows) for seq, rows in acks] + [("let go", seq, [row]) for seq, row in held]
        )
    )
    covers = dict.fromkeys(places, 0)
    gone: set[tuple[int, int]] = set()
    for step, seq, rows in steps:
        ledger = partition.ledgers[seq]
        if step == "cover":
            ledger.cover(rows)
            for row in range(sizes[seq]) if rows is None else rows:
                covers[seq, row] += 1
        elif rows is not None:
            ledger.let_go(rows[0])
            gone.add((seq, rows[0]))
        done = {place for place in places if covers[place] == leaves}
        assert set(partition.settled) == {place for place in done if place not in held or place in gone}
        assert len(partition.settled) == len(set(partition.settled))
        assert partition.committed == partition.expected()
        for place, holding in held.items():
            assert holding.told <= (place in done)
            if place not in gone:
                assert holding.told == (place in done)
    assert len(partition.settled) == sum(sizes)


def test_a_row_that_is_put_off_is_settled_when_it_is_said_and_holds_back_the_prefix() -> None:
    """It is answered for long before; whoever put it off is told, once."""
    settled: list[int] = []
    told: list[str] = []
    ledger = Ledger(2, 1, lambda _, rows: settled.extend(rows))
    tracker = SettlementTracker()
    tracker.opened(0, ledger)
    ledger.put_off(0, lambda: told.append("over"))
    with pytest.raises(EngineError, match="put off already"):
        ledger.put_off(0, lambda: None)
    ledger.cover(None)
    assert (settled, told, ledger.open_rows) == ([1], ["over"], 1)
    assert tracker.settled_prefix == 0
    ledger.settle_now(0)
    assert (settled, told, ledger.open_rows) == ([1, 0], ["over"], 0)
    assert tracker.settled_prefix == 2
    with pytest.raises(EngineError, match="was not put off"):
        ledger.settle_now(0)


def test_a_row_is_put_off_behind_whatever_holds_it() -> None:
    """A letter that is still to be kept belongs to the attempt that is under way."""
    settled: list[int] = []
    told: list[str] = []
    ledger = Ledger(1, 1, lambda _, rows: settled.extend(rows))
    ledger.put_off(0, lambda: told.append("over"))
    ledger.expect(0)
    ledger.cover(None)
    assert told == []
    ledger.arrived(0)
    assert (told, settled) == (["over"], [])
    ledger.settle_now(0)
    assert settled == [0]


def test_a_row_can_be_settled_only_once_it_is_answered_for() -> None:
    settled: list[int] = []
    ledger = Ledger(1, 1, lambda _, rows: settled.extend(rows))
    ledger.put_off(0, lambda: None)
    with pytest.raises(EngineError, match="is not answered for"):
        ledger.settle_now(0)
