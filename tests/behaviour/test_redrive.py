"""Records of dead letters run again: marked when they went through, standing in a new letter when not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from flowcore import Workflow, node
from flowcore.context import NodeContext
from flowcore.dead_letters import DeadLetter, LetterFilter, LetterState
from flowcore.errors import SinkError
from flowcore.settings import DeadLetterPlace
from flowruntime.execute.redrive import Redriven
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.conformance.letters import sample_letter
from flowruntime.testing.letters import CollectedLetters
from tests.behaviour.harness import DEAD_LETTER, Script, graveyard, kept, now, runtime, virtual

PLACE = DeadLetterPlace(type="test.graveyard")


class Bench:
    """A workflow whose node refuses what `refused` says, its letters, and what its sink has."""

    def __init__(self, refused: Iterable[Any], **settings: Any) -> None:
        self.refused = list(refused)
        self.letters = CollectedLetters()
        self.sink = kept(name="redrive.sink")
        self.calls: list[Any] = []
        self.workflow = self.make(**settings)

    def make(self, *, name: str = "shop", **settings: Any) -> Workflow:
        """The workflow, or another version of it."""

        @node("redrive.check")
        def check(value: Any) -> Any:
            self.calls.append(value)
            if value in self.refused:
                raise ValueError(f"refused {value}")
            return value

        wf = Workflow(name, settings=DEAD_LETTER | settings)
        wf.chain(wf.add(Script, id="s"), wf.add(check, id="n"), wf.add(self.sink, id="k"))
        return wf

    def runtime(self, **options: Any) -> FlowRuntime:
        return runtime(nodes=[graveyard(self.letters)], **options)

    async def fail(self, rt: FlowRuntime, *values: Any) -> list[DeadLetter]:
        """Let these go through a stream first."""
        await (await rt.start(self.workflow, sources={"s": Script([list(values)])})).wait()
        return self.letters.letters

    async def redrive(
        self,
        rt: FlowRuntime,
        workflow: Workflow | None = None,
        wanted: LetterFilter | None = None,
        **options: Any,
    ) -> list[Redriven]:
        store = await rt.letters(PLACE)
        return [fate async for fate in rt.redrive(workflow or self.workflow, store, wanted, **options)]

    async def states(self, rt: FlowRuntime) -> list[LetterState]:
        store = await rt.letters(PLACE)
        return [filed.state for filed in (await store.list(limit=1_000)).letters]


@virtual
async def test_a_record_that_goes_through_now_is_written_and_its_letter_redriven() -> None:
    bench = Bench([1, 3])
    async with bench.runtime() as rt:
        letters = await bench.fail(rt, 1, 2, 3)
        bench.refused.clear()
        fates = await bench.redrive(rt)
        # letters of one time come in either order
        assert {fate.letters for fate in fates} == {(letter.id,) for letter in letters}
        assert [fate.fate for fate in fates] == ["redriven", "redriven"]
        assert bench.sink.rows[0] == 2
        assert sorted(bench.sink.rows[1:]) == [1, 3]
        assert await bench.states(rt) == ["redriven", "redriven"]
        assert await bench.redrive(rt) == [], "nothing is left to do"


@virtual
async def test_a_record_that_fails_again_stands_in_a_new_letter_that_tells_of_the_old_one() -> None:
    bench = Bench([1])
    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
        fates: list[Redriven] = []
        for _ in range(2):
            await asyncio.sleep(1)
            fates += await bench.redrive(rt)
        assert [(fate.fate, fate.why) for fate in fates] == [("failed", "n: ValueError: refused 1")] * 2
        first, second, third = bench.letters.letters
        assert [fate.made for fate in fates] == [(second.id,), (third.id,)]
        assert [each.id for each in third.lineage] == [first.id, second.id]
        assert [each.redriven_at for each in third.lineage] == [1.0, 2.0]
        assert third.origin == second.origin == first.origin, "the record came from where it came from"
        assert third.record == first.record
        assert await bench.states(rt) == ["resolved", "resolved", "pending"]
        store = await rt.letters(PLACE)
        assert (await store.get(second.id)).note == f"failed again: {third.id}"
        await asyncio.sleep(1)
        bench.refused.clear()
        assert [fate.fate for fate in await bench.redrive(rt)] == ["redriven"]
        assert bench.sink.rows == [1], "once, however many letters it had"


@virtual
async def test_an_edited_record_is_run_in_the_place_of_the_one_that_failed() -> None:
    bench = Bench(["one"])
    async with bench.runtime() as rt:
        (letter,) = await bench.fail(rt, "one")
        store = await rt.letters(PLACE)
        await store.replace(letter.id, 1)
        assert [fate.fate for fate in await bench.redrive(rt)] == ["redriven"]
        assert bench.sink.rows == [1]
        filed = await store.get(letter.id)
        assert (filed.letter.record, filed.edit, filed.state) == ("one", 1, "redriven")


@virtual
async def test_a_changed_workflow_takes_the_records_of_the_old_one() -> None:
    bench = Bench(["1", "x"])
    async with bench.runtime() as rt:
        letters = await bench.fail(rt, "1", "x")

        @node("redrive.fixed")
        def fixed(value: str) -> int:
            return int(value)

        changed = Workflow("shop", version="2", settings=DEAD_LETTER)
        changed.chain(
            changed.add(Script, id="s"), changed.add(fixed, id="m"), changed.add(bench.sink, id="k")
        )
        await asyncio.sleep(1)
        fates = await bench.redrive(rt, changed)
    assert sorted(fate.fate for fate in fates) == ["failed", "redriven"]
    assert bench.sink.rows == [1]
    new = bench.letters.letters[-1]
    assert (new.node, new.workflow_version, new.lineage[0].id) == ("m", "2", letters[1].id)
    assert new.workflow_hash not in ("", letters[1].workflow_hash)


@virtual
async def test_key_headers_event_time_and_record_are_there_again() -> None:
    seen: list[Any] = []

    @node("redrive.context")
    def told(value: Any, ctx: NodeContext) -> Any:
        seen.append((ctx.key, ctx.headers, ctx.event_time and ctx.event_time.isoformat(), ctx.record))
        return value

    wf = Workflow("told", settings=DEAD_LETTER)
    tells = wf.add(told, id="n")
    wf.connect(wf.add(Script, id="s"), tells["value"], when='key == b"k" && headers.trace == "t"')
    wf.chain(tells, wf.add(kept(name="redrive.told"), id="k"))
    origin = {"key": {"$bytes": "aw=="}, "headers": {"trace": "t"}, "event_time": "2026-01-02T00:00:00+00:00"}
    letters = CollectedLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        store = await rt.letters(PLACE)
        old = sample_letter(1, at=0.0)
        await store.write(
            [
                msgspec.structs.replace(
                    old, origin=msgspec.convert({"source": "s", **origin}, type(old.origin))
                )
            ]
        )
        fates = [fate async for fate in rt.redrive(wf, store)]
    assert [fate.fate for fate in fates] == ["redriven"]
    assert seen == [(b"k", {"trace": "t"}, "2026-01-02T00:00:00+00:00", {"order": 1})]


@virtual
async def test_several_letters_of_one_record_are_one_run() -> None:
    """Else a record with three failed children would be run three times, and its other children nine."""
    refused = {1, 3}

    @node("redrive.range")
    def count(value: int) -> Iterator[int]:
        yield from range(value)

    @node("redrive.odd")
    def odd(value: int) -> int:
        if value in refused:
            raise ValueError(f"odd {value}")
        return value

    sink = kept(name="redrive.many")
    wf = Workflow("many", settings=DEAD_LETTER)
    wf.chain(wf.add(Script, id="s"), wf.add(count, id="c"), wf.add(odd, id="o"), wf.add(sink, id="k"))
    letters = CollectedLetters()
    async with runtime(nodes=[graveyard(letters)]) as rt:
        await (await rt.start(wf, sources={"s": Script([[4]])})).wait()
        assert len(letters.letters) == 2
        del sink.rows[:]
        store = await rt.letters(PLACE)
        await asyncio.sleep(1)
        refused.discard(3)
        (fate,) = [fate async for fate in rt.redrive(wf, store)]
        assert fate.fate == "failed"
        assert set(fate.letters) == {letter.id for letter in letters.letters[:2]}
        assert len(letters.letters) == 3, "one child failed again"
        await asyncio.sleep(1)
        refused.clear()
        (fate,) = [fate async for fate in rt.redrive(wf, store)]
    assert sorted(sink.rows) == [0, 0, 1, 2, 2, 3, 3]


@virtual
async def test_letters_of_one_record_on_different_pages_are_one_run_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowruntime.execute.redrive.PAGE", 1)
    bench = Bench([])
    async with bench.runtime() as rt:
        store = await rt.letters(PLACE)
        one = sample_letter(1, at=0.0, record="r", origin=ORIGIN)
        await store.write([one, sample_letter(2, at=0.0, record="q", origin=ORIGIN)])
        await store.write([msgspec.structs.replace(one, id="twin")])
        fates = await bench.redrive(rt)
        assert [fate.letters for fate in fates] == [(one.id,), (sample_letter(2).id,), ("twin",)]
        assert bench.calls == ["r", "q"]
        assert await bench.states(rt) == ["redriven"] * 3


ORIGIN = msgspec.structs.replace(sample_letter(1).origin, source="s")


@virtual
async def test_what_must_not_be_run_is_refused_and_stays_as_it_is() -> None:
    bench = Bench([])
    unfit = {
        "described": {"lossy": {"record": "it is a Foreign"}},
        "undecoded": {"undecoded": True},
        "keyless": {"lossy": {"key": "it is a tuple"}},
        "homeless": {"origin": msgspec.structs.replace(ORIGIN, source="orders")},
        "shapeless": {"origin": msgspec.structs.replace(ORIGIN, source=None), "record": [1]},
        "nodeless": {"origin": msgspec.structs.replace(ORIGIN, source=None), "record": {"who": {"value": 1}}},
        "portless": {"origin": msgspec.structs.replace(ORIGIN, source=None), "record": {"n": {"valu": 1}}},
        "broken": {"record": {"$what": 1}},
        "timeless": {"origin": msgspec.structs.replace(ORIGIN, event_time="yesterday")},
    }
    async with bench.runtime() as rt:
        store = await rt.letters(PLACE)
        for number, (name, fields) in enumerate(unfit.items()):
            await store.write([sample_letter(number, id=name, at=0.0, **({"origin": ORIGIN} | fields))])
        fates = {fate.letters[0]: fate for fate in await bench.redrive(rt)}
        assert {fate.fate for fate in fates.values()} == {"refused"}
        assert set(await bench.states(rt)) == {"pending"}
        assert bench.calls == []
        for name, part in {
            "described": "it is a Foreign",
            "undecoded": "raw input",
            "keyless": "its key could not be kept",
            "homeless": "came from source 'orders', which workflow 'shop' does not have",
            "shapeless": "no mapping of inputs by node",
            "nodeless": "no mapping of inputs by node",
            "portless": "'valu'",
            "broken": "known forms are",
            "timeless": "it cannot be read",
        }.items():
            assert part in fates[name].why, (name, fates[name].why)
        await store.replace("described", "now a value")
        assert [fate.fate for fate in await bench.redrive(rt, incomplete=True)].count("redriven") == 2
        assert bench.sink.rows == ["now a value", {"order": 2}]


@virtual
async def test_a_letter_that_is_done_is_not_run_again_not_even_by_name() -> None:
    bench = Bench([1])
    async with bench.runtime() as rt:
        (letter,) = await bench.fail(rt, 1)
        bench.refused.clear()
        await bench.redrive(rt)
        (fate,) = await bench.redrive(rt, wanted=LetterFilter(ids=frozenset({letter.id})))
        assert (fate.fate, fate.why) == ("refused", "it is redriven")
    assert bench.sink.rows == [1]


@virtual
async def test_requests_and_items_of_a_stream_are_run_again_with_their_inputs() -> None:
    bench = Bench([])
    refused = {1}

    @node("redrive.sum")
    def add(left: int, right: int) -> int:
        if left in refused:
            raise ValueError("no")
        bench.calls.append((left, right))
        return left + right

    wf = Workflow("sums", settings=DEAD_LETTER)
    wf.add(add, id="n")
    async with bench.runtime() as rt:
        await rt.execute(wf, {"n": {"left": 1, "right": 2}})
        assert [out.ok async for out in rt.stream(wf, [{"left": 1, "right": 5}])] == [False]
        refused.clear()
        await asyncio.sleep(1)
        assert [fate.fate for fate in await bench.redrive(rt, wf)] == ["redriven"] * 2
    assert bench.calls == [(1, 2), (1, 5)]


@virtual
async def test_a_failure_no_policy_makes_a_letter_of_has_one_after_a_redrive() -> None:
    """A workflow that lost its dead letters must not lose the record."""
    bench = Bench([1])
    async with bench.runtime() as rt:
        (old,) = await bench.fail(rt, 1)
        for policy in ("stop_workflow", "continue"):
            await asyncio.sleep(1)
            forgetful = bench.make(on_error=policy, dead_letter=None)
            (fate,) = await bench.redrive(rt, forgetful)
            new = bench.letters.letters[-1]
            assert (fate.fate, fate.made) == ("failed", (new.id,))
            assert (new.node, new.error.message, new.record, new.lineage[0].id) == (
                "n",
                "refused 1",
                1,
                old.id,
            )
        assert await bench.states(rt) == ["resolved", "resolved", "pending"]


@virtual
async def test_failures_an_error_connection_takes_are_handled_and_the_letter_redriven() -> None:
    bench = Bench([1])
    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
        ported = bench.make()
        wrong = kept(name="redrive.wrong")
        ported.connect("n.error", ported.add(wrong, id="wrong"))
        assert [fate.fate for fate in await bench.redrive(rt, ported)] == ["redriven"]
    assert [row["record"] for row in wrong.rows] == [1]


@virtual
async def test_a_request_that_does_not_end_leaves_its_letter_pending() -> None:
    bench = Bench([1])

    @node("redrive.stuck")
    async def stuck(value: Any) -> Any:
        await asyncio.Event().wait()

    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
        wf = Workflow("shop", settings=DEAD_LETTER | {"timeout": "1s"})
        wf.chain(wf.add(Script, id="s"), wf.add(stuck, id="n"), wf.add(bench.sink, id="k"))
        (fate,) = await bench.redrive(rt, wf)
        assert fate.fate == "left"
        assert "did not finish within 1.0 s" in fate.why
        assert await bench.states(rt) == ["pending"]


# --- how many, in which order, until when -----------------------------------------------------------------


@virtual
async def test_a_bounded_number_is_in_work_and_a_limit_is_kept() -> None:
    working, most = 0, 0

    @node("redrive.slow", concurrency=100)
    async def slow(value: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(1)
        working -= 1
        return value

    bench = Bench([])
    wf = Workflow("slow", settings=DEAD_LETTER)
    wf.chain(wf.add(Script, id="s"), wf.add(slow, id="n"), wf.add(bench.sink, id="k"))
    async with bench.runtime() as rt:
        store = await rt.letters(PLACE)
        await store.write([sample_letter(n, at=0.0, record=n, origin=ORIGIN) for n in range(40)])
        fates = await bench.redrive(rt, wf, parallel=5, limit=12)
        assert (len(fates), most) == (12, 5)
        began = now()
        await bench.redrive(rt, wf, parallel=14)
        assert now() - began == pytest.approx(2.0)
        assert await bench.states(rt) == ["redriven"] * 40
        assert sorted(bench.sink.rows) == list(range(40))


@virtual
async def test_one_at_a_time_keeps_the_order() -> None:
    bench = Bench([])
    async with bench.runtime() as rt:
        store = await rt.letters(PLACE)
        await store.write([sample_letter(n, at=0.0, record=n, origin=ORIGIN) for n in range(300)])
        await bench.redrive(rt, parallel=1)
    assert bench.sink.rows == list(range(300))


@virtual
async def test_letters_made_meanwhile_are_left_for_the_next_time() -> None:
    """Else records that fail again would be run again and again."""
    bench = Bench([1, 2])
    async with bench.runtime() as rt:
        await bench.fail(rt, 1, 2)
        await asyncio.sleep(1)
        store = await rt.letters(PLACE)
        going = rt.redrive(bench.workflow, store)
        await store.write([sample_letter(9, at=now() + 60, record=9, origin=ORIGIN)])
        assert [fate.fate async for fate in going] == ["failed", "failed"]
        assert (going.looked_at, going.later) == (2, 1)
        assert len(bench.letters.letters) == 5


@virtual
async def test_a_dry_run_runs_and_marks_nothing() -> None:
    bench = Bench([1])
    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
        store = await rt.letters(PLACE)
        await store.write([sample_letter(1, at=0.0, undecoded=True, origin=ORIGIN)])
        bench.calls.clear()
        fates = await bench.redrive(rt, dry_run=True)
        assert sorted(fate.fate for fate in fates) == ["redriven", "refused"]  # both were written at one time
        assert bench.calls == []
        assert await bench.states(rt) == ["pending", "pending"]


class Slowly(CollectedLetters):
    """Marking takes a second, and may be made to fail."""

    unmarkable = False

    async def mark(self, ids: Iterable[str], state: LetterState, *, note: str = "") -> None:
        await asyncio.sleep(1)
        if self.unmarkable:
            raise SinkError("disk full")
        await super().mark(ids, state, note=note)


@virtual
async def test_a_stop_finishes_what_is_in_work_and_a_consumer_that_leaves_leaves_nothing_running() -> None:
    bench = Bench([])
    bench.letters = Slowly()
    async with bench.runtime() as rt:
        store = await rt.letters(PLACE)
        await store.write([sample_letter(n, at=0.0, record=n, origin=ORIGIN) for n in range(20)])
        going = rt.redrive(bench.workflow, store, parallel=2)
        seen: list[Redriven] = []
        async for fate in going:
            seen.append(fate)
            going.stop()
        assert 1 <= len(seen) <= 3
        assert (await bench.states(rt)).count("redriven") == len(seen)
        async with aclosing(aiter(rt.redrive(bench.workflow, store, parallel=4))) as fates:
            await anext(aiter(fates))
        again = await bench.redrive(rt)
        assert (await bench.states(rt)) == ["redriven"] * 20
        assert len(again) >= 20 - len(seen) - 5, "those in work when it was left are pending, and run again"


@virtual
async def test_a_store_that_cannot_mark_ends_the_redrive_loudly_and_the_record_may_run_again() -> None:
    bench = Bench([])
    letters = bench.letters = Slowly()
    async with bench.runtime() as rt:
        store = await rt.letters(PLACE)
        await store.write([sample_letter(n, at=0.0, record=n, origin=ORIGIN) for n in range(3)])
        letters.unmarkable = True
        with pytest.raises(SinkError, match="disk full"):
            await bench.redrive(rt)
        letters.unmarkable = False
        assert await bench.states(rt) == ["pending"] * 3
        await bench.redrive(rt)
        assert await bench.states(rt) == ["redriven"] * 3
    assert set(bench.sink.rows) == {0, 1, 2}, "at least once"


@virtual
async def test_a_new_letter_that_cannot_be_written_leaves_the_old_one_pending() -> None:
    bench = Bench([1])
    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
        bench.letters.fails = OSError("disk full")
        with pytest.raises(OSError, match="disk full"):
            await bench.redrive(rt)
        bench.letters.fails = None
        assert await bench.states(rt) == ["pending"]


class Crashing(CollectedLetters):
    """Raises once a letter is written and before the old one is marked."""

    async def mark(self, ids: Iterable[str], state: LetterState, *, note: str = "") -> None:
        raise SystemError("killed here")


@virtual
async def test_a_crash_between_the_new_letter_and_the_mark_leaves_both_and_loses_nothing() -> None:
    bench = Bench([1])
    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
    survived = bench.letters
    crashing = bench.letters = Crashing()
    vars(crashing).update(vars(survived))
    async with bench.runtime() as rt:
        with pytest.raises(SystemError):
            await bench.redrive(rt)
    vars(survived).update(vars(crashing))
    bench.letters = survived
    async with bench.runtime() as rt:
        assert await bench.states(rt) == ["pending", "pending"]
        bench.refused.clear()
        await asyncio.sleep(1)
        fates: Sequence[Redriven] = await bench.redrive(rt)
        assert [fate.fate for fate in fates] == ["redriven"] * 2
    assert bench.sink.rows == [1, 1], "at least once"


@virtual
async def test_a_redrive_takes_the_deadline_of_the_workflow() -> None:
    bench = Bench([1], timeout=timedelta(seconds=5))
    async with bench.runtime() as rt:
        await bench.fail(rt, 1)
        bench.refused.clear()
        assert [fate.fate for fate in await bench.redrive(rt)] == ["redriven"]
