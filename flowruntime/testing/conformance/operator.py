"""What every stage operator must do, as tests that hold a small chain of real operators to it.

Owns: `OperatorConformance`, `OperatorSubject`.
Does not own: feeding and watching (bench), or what is special about one kind of stage.

The rules are those of Reactive Streams, translated to frames, credit and cover
(docs/specs/reactive-streams.md), the cover rule and the passing rule of signals.
Always holds: chance comes from fixed seeds, time is virtual.

    class TestJoin(OperatorConformance):
        @pytest.fixture
        def subject(self) -> OperatorSubject:
            return OperatorSubject(make=make_workflow, kind="join")
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from flowcore.frame import END, Barrier, End, Frame, Opened
from flowcore.workflow import Workflow
from flowruntime.compile.plan import StageKind
from flowruntime.testing.conformance.bench import Bench, Watch, feed_all
from flowruntime.testing.virtual import run_virtual

_SEEDS: Final = range(15)
_ROWS: Final = 24


@dataclass(frozen=True, kw_only=True)
class OperatorSubject:
    """A workflow whose plan has the operator under test."""

    make: Callable[[], Workflow]
    """A new workflow with one declared source; failures must not stop it (`on_error: continue`)."""
    kind: StageKind
    """The stage under test; the plan must have one."""
    value: Callable[[int], Any] = str
    """The n-th row's value."""
    key: Callable[[Any], object] | None = None
    """A row's key, from its value."""
    order: Literal["ordered", "by_key"] | None = None
    """What the operator promises of the order of its rows."""
    passes: bool = True
    """Signals keep their place among rows; not so inside an operator that settles on entry."""
    holds_barriers: bool = True
    """No later row overtakes a Barrier."""


class OperatorConformance:
    """Inherit, and give a fixture `subject`."""

    def test_the_plan_has_the_operator(self, subject: OperatorSubject) -> None:
        async def scenario() -> None:
            async with Bench(subject.make()) as bench:
                assert bench.operators_of(subject.kind), f"no stage is {subject.kind!r}"

        run_virtual(scenario())

    def test_each_row_is_covered_exactly_once_on_every_edge(self, subject: OperatorSubject) -> None:
        """OPR-1; 1.3, 1.7: whatever parts come in, and whatever failed or was dropped before."""
        _each(subject, _check_cover)

    def test_every_row_is_settled_once_and_all_credit_comes_back(self, subject: OperatorSubject) -> None:
        """1.2, 3.17: growth is charged and given back; nothing is held when all is settled."""
        _each(subject, _check_settled)

    def test_no_signal_overtakes_earlier_rows_and_no_row_a_barrier(self, subject: OperatorSubject) -> None:
        """OPR-4."""
        if subject.passes:
            _each(subject, lambda bench: _check_passing(bench, subject))

    def test_one_end_on_every_edge_and_nothing_after_it(self, subject: OperatorSubject) -> None:
        """1.5, 1.6, 1.7, 2.4."""
        _each(subject, _check_end)

    def test_rows_leave_in_the_order_promised(self, subject: OperatorSubject) -> None:
        """OPR-3."""
        if subject.order is not None:
            _each(subject, lambda bench: _check_order(bench, subject))

    def test_everything_happens_on_the_thread_of_the_loop(self, subject: OperatorSubject) -> None:
        """1.3, 2.7, 2.11: serial, one thread."""

        def check(bench: Bench) -> None:
            for watch in bench.watches:
                assert watch.threads <= {threading.get_ident()}, f"{watch.name} was used by another thread"

        _each(subject, check)

    def test_an_observer_that_raises_fails_the_chain_and_never_the_caller(
        self, subject: OperatorSubject
    ) -> None:
        """OPR-2; 2.13: and one fault is told, not hidden."""

        async def scenario(seed: int) -> None:
            async with Bench(subject.make()) as bench:
                fault = ValueError("an observer raised")

                def raise_it(item: object) -> None:
                    del item
                    raise fault

                edges = [edge for operator in bench.operators_of(subject.kind) for edge in operator.edges]
                for edge in edges:
                    edge.observable().subscribe(raise_it)
                await feed_all(bench, random.Random(seed), _values(subject), key=subject.key, signals=False)
                bench.signal(END)
                await asyncio.sleep(60)
                assert bench.crashes == [] if not edges else bench.crashes[0] is fault
                assert bench.kernel.closed == bool(edges)

        run_virtual(scenario(0))

    def test_closing_at_any_moment_ends_all_emission_and_leaves_nothing_running(
        self, subject: OperatorSubject
    ) -> None:
        """OPR-6; 3.5, 3.6, 3.7, 3.12, 3.13: cancelling is idempotent and final."""

        async def scenario(seed: int) -> None:
            chance = random.Random(seed)
            async with Bench(subject.make()) as bench:
                feeding = asyncio.create_task(
                    feed_all(bench, chance, _values(subject), key=subject.key, signals=subject.passes)
                )
                await asyncio.sleep(chance.choice((0, 0.1, 1, 3, 6)))
                bench.chain.close()
                for operator in bench.operators:
                    operator.close()
                before = [len(watch.items) for watch in bench.watches]
                await feeding
                await asyncio.sleep(60)
                for watch, count in zip(bench.watches, before, strict=True):
                    later = [item for item in watch.items[count:] if isinstance(item, Frame)]
                    assert not later, f"{watch.name} emitted {later} after close"
                assert not bench.crashes
            assert asyncio.all_tasks() == {asyncio.current_task()}

        for seed in _SEEDS:
            run_virtual(scenario(seed), seed=seed)

    def test_statistics_answer_at_any_time_and_are_zero_at_the_end(self, subject: OperatorSubject) -> None:
        async def scenario(seed: int) -> None:
            async with Bench(subject.make()) as bench:
                feeding = asyncio.create_task(
                    feed_all(bench, random.Random(seed), _values(subject), key=subject.key, signals=False)
                )
                while not feeding.done():
                    for operator in bench.operators:
                        figures = operator.statistics()
                        assert figures["in_flight"] >= 0
                        assert all(isinstance(figure, int | float | None) for figure in figures.values())
                    await asyncio.sleep(0.3)
                await bench.finish()
                for operator in bench.operators:
                    figures = operator.statistics()
                    assert figures["in_flight"] == 0, f"{operator.stage} still holds rows: {figures}"

        run_virtual(scenario(1))


# --- driving ----------------------------------------------------------------------------------------------


def _values(subject: OperatorSubject) -> list[Any]:
    return [subject.value(number) for number in range(_ROWS)]


def _each(subject: OperatorSubject, check: Callable[[Bench], None]) -> None:
    """Run the chain under every seed, plain and recording, and check what came of it."""
    for seed in _SEEDS:
        run_virtual(_scenario(subject, check, seed), seed=seed)


def _scenario(subject: OperatorSubject, check: Callable[[Bench], None], seed: int) -> Any:
    async def scenario() -> None:
        async with Bench(subject.make(), recording=seed % 2 == 1) as bench:
            chance = random.Random(seed)
            await feed_all(bench, chance, _values(subject), key=subject.key, signals=subject.passes)
            await bench.finish()
            assert not bench.crashes, f"seed {seed}: the chain broke: {bench.crashes[0]!r}"
            try:
                check(bench)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error

    return scenario()


# --- checks -----------------------------------------------------------------------------------------------


def _check_cover(bench: Bench) -> None:
    for watch in bench.watches:
        covered: dict[Opened, set[int]] = {}
        for frame in watch.frames:
            _check_part(watch, frame)
            seen = covered.setdefault(frame.opened, set())
            twice = seen & set(frame.covered)
            assert not twice, f"{watch.name}: rows {sorted(twice)} of {frame.opened!r} were covered twice"
            seen.update(frame.covered)
        for opened, rows in covered.items():
            missing = set(range(opened.size)) - rows
            assert not missing, f"{watch.name}: rows {sorted(missing)} of {opened!r} were never covered"
        if covered and any(opened.parents is None for opened in covered):
            absent = [opened for opened in bench.roots if opened not in covered]
            assert not absent, f"{watch.name}: {absent} never came"


def _check_part(watch: Watch, frame: Frame[Any]) -> None:
    present, covers = list(frame.present), list(frame.covered)
    where = f"{watch.name}: {frame!r}"
    assert len(present) == len(frame.values), f"{where} has {len(frame.values)} values for rows {present}"
    assert present == sorted(set(present)), f"{where} has rows {present}"
    assert len(covers) == len(set(covers)), f"{where} covers {covers}"
    assert set(present) <= set(covers), f"{where} has rows {present} and covers only {covers}"
    assert all(0 <= row < frame.opened.size for row in covers), f"{where} covers {covers}"
    failed = set(frame.failed or ()) & set(present)
    assert not failed, f"{where}: rows {sorted(failed)} have a value and a failure"


def _check_settled(bench: Bench) -> None:
    for opened in bench.roots:
        rows = bench.settled_rows.get(opened, [])
        assert sorted(rows) == list(range(opened.size)), f"{opened!r} settled rows {rows}"
        assert opened.ledger.open_rows == 0
    for watch in bench.watches:
        for frame in watch.frames:
            assert frame.opened.ledger.open_rows == 0, f"{watch.name}: {frame.opened!r} is not settled"
    assert bench.worker.budget.rows_in_flight == 0
    assert bench.kernel.in_progress == 0


def _check_end(bench: Bench) -> None:
    for watch in bench.watches:
        assert watch.ends == 1, f"{watch.name} ended {watch.ends} times"
        assert watch.items[-1] == END, f"{watch.name} emitted {watch.items[-1]!r} after its end"


def _check_passing(bench: Bench, subject: OperatorSubject) -> None:
    fed_before = {repr(signal): count for signal, count in bench.signals}
    for watch in bench.watches:
        passed = 0
        """Rows fed before the newest signal that has passed; none of them may come any more."""
        for item in watch.items:
            if isinstance(item, Frame):
                for row in item.covered:
                    order = bench.order[item.opened.root(row)]
                    assert order >= passed, f"{watch.name}: overtaken: row {row} of {item.opened!r}"
            elif isinstance(item, End):
                passed = len(bench.order)
            else:
                passed = max(passed, fed_before[repr(item)])
    if subject.holds_barriers:
        for watch in bench.watches:
            _check_barriers(bench, watch, fed_before)


def _check_barriers(bench: Bench, watch: Watch, fed_before: dict[str, int]) -> None:
    waiting = [signal for signal, _ in bench.signals if isinstance(signal, Barrier)]
    for item in watch.items:
        if isinstance(item, Barrier):
            assert item == waiting.pop(0), f"{watch.name}: {item!r} came out of turn"
        elif isinstance(item, Frame) and waiting:
            for row in item.covered:
                order = bench.order[item.opened.root(row)]
                allowed = order < fed_before[repr(waiting[0])]
                assert allowed, f"{watch.name}: row {row} of {item.opened!r} has overtaken {waiting[0]!r}"
    assert not waiting, f"{watch.name}: {waiting} never passed"


def _check_order(bench: Bench, subject: OperatorSubject) -> None:
    for watch in bench.watches:
        if watch.kind != subject.kind:
            continue
        newest: dict[object, int] = {}
        for frame in watch.frames:
            for row in frame.present:
                root, root_row = frame.opened.root(row)
                key = None if subject.order == "ordered" or root.keys is None else root.keys[root_row]
                order = bench.order[root, root_row]
                assert order >= newest.get(key, -1), f"{watch.name}: row {row} of {root!r} came late"
                newest[key] = order
