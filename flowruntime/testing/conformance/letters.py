"""What every store of dead letters must do, as tests its author inherits.

Owns: `DeadLetterStoreConformance`, `LetterStoreSubject`, `sample_letter`.
Does not own: what is special about one store; its author tests that.

Always holds: the tests need no plugin, no network and no real waiting; nothing of a store is used that one
which can only append could not offer.

    class TestFileLetters(DeadLetterStoreConformance):
        @pytest.fixture
        def subject(self, tmp_path) -> LetterStoreSubject:
            return LetterStoreSubject(make=lambda: FileLetters(str(tmp_path / "dead.jsonl")))
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from flowcore.context import SinkContext
from flowcore.dead_letters import (
    Ancestor,
    DeadLetter,
    DeadLetterStore,
    Filed,
    LetterFilter,
    LetterPage,
    Origin,
)
from flowcore.errors import FlowError, LetterNotFoundError, LetterStateError
from flowcore.events import ErrorInfo
from flowcore.plain import from_plain, to_plain
from flowcore.values import Json, ValueFormError, same_value
from flowruntime.testing.contexts import StandaloneSinkContext

R = TypeVar("R")
_TIMEOUT_S = 30.0

ODD_VALUES: Final[list[Any]] = [
    None, True, 0, -1, 1 << 70, -(1 << 70), (1 << 64) - 1, 0.0, -0.0, 0.1, 1e308, 5e-324,
    math.nan, math.inf, -math.inf, "", "\u00fc\u2028\n\0", "\ud800", b"", b"\x00\xff\n", Json(b'{"a": 1.0}'),
    [], {}, {"$bytes": "no form", "a": [1, [2.0, {"": None}]]},
]  # fmt: skip
"""One of every kind of value, and those that JSON would change."""


def sample_letter(number: int, **fields: Any) -> DeadLetter:
    """A letter, each number another one; with `fields` in the place of its own."""
    letter = DeadLetter(
        id=f"0199a000-0000-7000-8000-{number:012d}",
        at=1_000.0 + number,
        workflow="shop",
        node=f"node{number % 3}",
        execution_id=f"run/orders/0#{number}.0",
        error=ErrorInfo(kind=("ValueError", "ParseError")[number % 2], message=f"failure {number}"),
        attempts=1 + number % 4,
        origin=Origin(source="orders", partition="0", position={"offset": number}, index=number, key="k"),
        record={"order": number},
        value={"text": f"order {number}"},
    )
    return msgspec.structs.replace(letter, **fields)


@dataclass(frozen=True, kw_only=True)
class LetterStoreSubject:
    """A store under test."""

    make: Callable[[], DeadLetterStore]
    """A new store on the same place, each time it is called."""
    context: Callable[[], SinkContext] = StandaloneSinkContext
    durable: bool = True
    """What one store has written another one finds; False for stores in memory."""


class DeadLetterStoreConformance:
    """Inherit, and give a fixture `subject`."""

    def test_what_was_written_is_found_by_another_store_on_the_same_place(
        self, subject: LetterStoreSubject
    ) -> None:
        async def scenario() -> None:
            letters = [sample_letter(number) for number in range(5)]
            async with _Opened(subject) as store:
                await store.write(letters[:2])
                await store.write(letters[2:])
                if not subject.durable:
                    return
                async with _Opened(subject) as other:  # while the first one is still open
                    assert _letters(await other.list()) == letters
            async with _Opened(subject) as later:
                assert _letters(await later.list()) == letters
                assert (await later.get(letters[3].id)).letter == letters[3]

        _run(scenario())

    def test_every_kind_of_value_comes_back_as_it_was(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            async with _Opened(subject) as store:
                for number, value in enumerate(ODD_VALUES):
                    plain = to_plain(value)
                    origin = Origin(source="s", position=plain, key=plain, headers={"h": plain})
                    await store.write([sample_letter(number, record=plain, value=plain, origin=origin)])
                found = (await store.list(limit=len(ODD_VALUES))).letters
            for filed, value in zip(found, ODD_VALUES, strict=True):
                letter = filed.letter
                for kept in (filed.record, letter.value, letter.origin.key, letter.origin.headers["h"]):
                    assert same_value(from_plain(kept), value), (kept, value)

        _run(scenario())

    def test_nothing_of_a_letter_is_left_out(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            earlier = Ancestor(
                id="a", at=1.5, node="n", error="E: m", attempts=2, redriven_at=2.5, edited=True
            )
            full = sample_letter(
                1,
                workflow_version="7",
                workflow_hash="ab",
                undecoded=True,
                together="b",
                lossy={"record": "why"},
                lineage=(earlier,),
                value=msgspec.UNSET,
                error=ErrorInfo(kind="E", message="m\n", retriable=True, facts={"n": {"$float": "nan"}}),
                origin=Origin(event_time="2026-01-01T00:00:00+00:00"),
                record="x" * 100_000,
            )
            async with _Opened(subject) as store:
                await store.write([full])
                assert (await store.get(full.id)).letter == full

        _run(scenario())

    def test_pages_give_each_letter_once_in_the_order_written(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            letters = [sample_letter(number) for number in (3, 1, 4, 0, 5, 2, 6)]
            async with _Opened(subject) as store:
                await store.write(letters)
                for limit in (1, 2, 3, 7, 8):
                    found: list[DeadLetter] = []
                    after = None
                    while True:
                        page = await store.list(limit=limit, after=after)
                        assert len(page.letters) <= limit
                        found += _letters(page)
                        after = page.next
                        if after is None:
                            break
                    assert found == letters, f"pages of {limit}"

        _run(scenario())

    def test_a_page_holds_what_is_wanted_and_nothing_else(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            letters = [sample_letter(number) for number in range(12)]
            async with _Opened(subject) as store:
                await store.write(letters)
                await store.mark([letters[2].id, letters[5].id], "redriven")
                for wanted in (
                    LetterFilter(nodes=frozenset({"node1"})),
                    LetterFilter(errors=frozenset({"ParseError"})),
                    LetterFilter(since=1_007.0),
                    LetterFilter(states=frozenset({"redriven"})),
                    LetterFilter(states=frozenset({"pending"}), nodes=frozenset({"node2", "node0"})),
                    LetterFilter(ids=frozenset({letters[1].id, letters[9].id, "nobody"})),
                    LetterFilter(nodes=frozenset({"nowhere"})),
                ):
                    filed = [await store.get(letter.id) for letter in letters]
                    expected = [each for each in filed if wanted.takes(each)]
                    assert list((await store.list(wanted)).letters) == expected, wanted
                    first = await store.list(wanted, limit=1)
                    assert list(first.letters) == expected[:1]
                    assert (first.next is None) == (len(expected) <= 1), wanted

        _run(scenario())

    def test_an_empty_store_lists_nothing_and_takes_nothing(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            async with _Opened(subject) as store:
                assert await store.list() == LetterPage()
                await store.write([])
                await store.mark([], "redriven")
                assert await store.list() == LetterPage()

        _run(scenario())

    def test_an_edit_is_run_in_the_place_of_the_record_which_stays_as_it_was(
        self, subject: LetterStoreSubject
    ) -> None:
        async def scenario() -> None:
            letters = [sample_letter(number) for number in range(3)]
            async with _Opened(subject) as store:
                await store.write(letters)
                await store.replace(letters[1].id, {"order": "first"})
                changed = await store.replace(letters[1].id, None)
                assert (changed.edited, changed.record, changed.state) == (True, None, "pending")
                found = list((await store.list()).letters)
                assert [filed.letter for filed in found] == letters
                assert [filed.edited for filed in found] == [False, True, False]
                assert found[1] == changed == await store.get(letters[1].id)
                assert changed.changed_at is not None

        _run(scenario())

    def test_a_record_that_is_no_value_is_refused_and_changes_nothing(
        self, subject: LetterStoreSubject
    ) -> None:
        async def scenario() -> None:
            async with _Opened(subject) as store:
                await store.write([sample_letter(1)])
                for wrong in ({"$what": 1}, {"$bytes": "!"}, {"a": object()}):
                    await _raises(ValueFormError, store.replace(sample_letter(1).id, wrong))
                assert not (await store.get(sample_letter(1).id)).edited

        _run(scenario())

    def test_states_go_their_steps_and_no_others(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            one, two = sample_letter(1), sample_letter(2)
            async with _Opened(subject) as store:
                await store.write([one, two])
                await store.mark([one.id], "resolved", note="seen by a person")
                filed = await store.get(one.id)
                assert (filed.state, filed.note) == ("resolved", "seen by a person")
                await _raises(LetterStateError, store.mark([two.id, one.id], "redriven"))
                assert (await store.get(two.id)).state == "pending", "some of them were marked"
                await _raises(LetterStateError, store.replace(one.id, 1))
                await store.mark([one.id], "resolved")  # it is that already
                await store.mark([one.id, two.id], "pending")
                await store.mark([one.id, two.id, one.id], "redriven")
                assert [(await store.get(each.id)).state for each in (one, two)] == ["redriven"] * 2

        _run(scenario())

    def test_ids_and_places_nobody_has_are_told(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            async with _Opened(subject) as store:
                for letter_id in ("nobody", "", "x" * 1_000, sample_letter(1).id):
                    await _raises(LetterNotFoundError, store.get(letter_id))
                    await _raises(LetterNotFoundError, store.replace(letter_id, 1))
                await store.write([sample_letter(1)])
                await store.mark(["nobody"], "redriven")
                assert (await store.get(sample_letter(1).id)).state == "pending"
                await _raises(LetterNotFoundError, store.list(after="no such place"))

        _run(scenario())

    def test_two_stores_on_one_place_lose_nothing_of_each_other(self, subject: LetterStoreSubject) -> None:
        async def scenario() -> None:
            if not subject.durable:
                return
            letters = [sample_letter(number) for number in range(40)]
            async with _Opened(subject) as one, _Opened(subject) as two:
                await asyncio.gather(
                    *((one, two)[index % 2].write([letter]) for index, letter in enumerate(letters)),
                    *(one.list() for _ in range(5)),
                )
                await asyncio.gather(
                    *((one, two)[index % 2].mark([each.id], "redriven") for index, each in enumerate(letters))
                )
                for store in (one, two):
                    found = (await store.list(limit=100)).letters
                    assert sorted(filed.id for filed in found) == sorted(letter.id for letter in letters)
                    assert {filed.state for filed in found} == {"redriven"}

        _run(scenario())

    def test_a_cancelled_write_leaves_whole_letters_and_disturbs_no_other(
        self, subject: LetterStoreSubject
    ) -> None:
        """Which letters of the cancelled write arrive is unknown; those before and after must be there."""

        async def scenario() -> None:
            first, second, third = (sample_letter(number) for number in range(3))
            async with _Opened(subject) as store:
                await store.write([first])
                attempt = asyncio.ensure_future(store.write([second]))
                await asyncio.sleep(0)
                attempt.cancel()
                await asyncio.gather(attempt, return_exceptions=True)
                await store.write([third])
                page = await store.list()
            assert not page.broken
            assert _letters(page) in ([first, third], [first, second, third])

        _run(scenario())

    def test_a_closed_store_refuses_and_close_is_idempotent_also_unopened(
        self, subject: LetterStoreSubject
    ) -> None:
        async def scenario() -> None:
            await subject.make().close()
            store = subject.make()
            await store.open(subject.context())
            await store.write([sample_letter(1)])
            await store.close()
            await store.close()
            await _raises(FlowError, store.write([sample_letter(2)]))
            await _raises(FlowError, store.list())
            await _raises(FlowError, store.mark([sample_letter(1).id], "redriven"))
            assert asyncio.all_tasks() == {asyncio.current_task()}

        _run(scenario())


class _Opened:
    def __init__(self, subject: LetterStoreSubject) -> None:
        self._subject = subject
        self._store = subject.make()

    async def __aenter__(self) -> DeadLetterStore:
        await self._store.open(self._subject.context())
        return self._store

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()


def _letters(page: LetterPage) -> list[DeadLetter]:
    return [filed.letter for filed in page.letters]


async def _raises(kind: type[Exception], call: Awaitable[Filed | LetterPage | None]) -> None:
    try:
        await call
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected, and nothing was raised")


def _run(scenario: Awaitable[R]) -> R:
    async def bounded() -> R:
        async with asyncio.timeout(_TIMEOUT_S):
            return await scenario

    return asyncio.run(bounded())
