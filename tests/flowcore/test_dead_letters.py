"""Dead letters keep everything, say what they could not keep, and take only the steps that mean something."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.dead_letters import (
    LETTER_STATES,
    DeadLetter,
    Filed,
    LetterFilter,
    Origin,
    changes_state,
    error_info,
    error_line,
    kept,
    lineage_of,
    redrive_fault,
    root_of,
    step,
    with_edit,
)
from flowcore.errors import LetterStateError, NodeTimeoutError, ParseError
from flowcore.events import ErrorInfo
from flowcore.letter_log import Changes, LetterEdit, LetterMark, decode_entry, encode_entry
from flowcore.plain import from_plain
from flowcore.values import Json, Secret, ValueFormError, same_value

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.binary().map(Json),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(["$bytes", "$", "$$x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def letter(number: int = 1, **fields: Any) -> DeadLetter:
    made = DeadLetter(
        id=f"id{number}",
        at=100.0 + number,
        workflow="w",
        node="n",
        execution_id="run/s/0#0.1",
        error=ErrorInfo(kind="ValueError", message="no"),
        origin=Origin(source="s"),
        record={"a": 1},
    )
    return msgspec.structs.replace(made, **fields)


def filed(number: int = 1, **fields: Any) -> Filed:
    return Filed(letter=letter(number, **fields))


class Foreign:
    def __repr__(self) -> str:
        return "<a foreign object>"


class Broken:
    def __repr__(self) -> str:
        raise ValueError("no repr")


# --- what is kept -----------------------------------------------------------------------------------------


@given(value=VALUES)
def test_every_value_is_kept_without_loss_and_through_the_form_of_files(value: object) -> None:
    plain, reason = kept(value)
    assert reason is None
    found = decode_entry(encode_entry(letter(record=plain, value=plain)))
    assert isinstance(found, DeadLetter)
    assert same_value(from_plain(found.record), value)
    assert same_value(from_plain(found.value), value)


def _cyclic() -> object:
    value: list[object] = [1]
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("make", "shown", "reason"),
    [
        (lambda: {"good": 1, "bad": Foreign()}, "<a foreign object>", "value at bad is a Foreign"),
        (Foreign, "<a foreign object>", "is a Foreign"),
        (Broken, "__repr__ raised ValueError", "is a Broken"),
        (lambda: {1: "x"}, "x", "keys must be text"),
        (lambda: {"\ud800": 1}, "\\ud800", "lone surrogate"),
        (lambda: (1, 2), "1", "is a tuple"),
        (lambda: iter([1]), "list_iterator", "is a list_iterator"),
        (lambda: Secret("hunter22", name="PW"), "***", "is a Secret"),
        (_cyclic, "in itself", "nested deeper"),
        (lambda: bytearray(b"x"), "bytearray", "use bytes"),
    ],
)
def test_what_has_no_plain_form_is_described_where_it_stands_and_the_reason_is_told(
    make: Callable[[], object], shown: str, reason: str
) -> None:
    value = make()
    plain, why = kept(value)
    assert why is not None
    assert reason in why
    line = encode_entry(letter(record=plain, lossy={"record": why}))
    assert shown.encode() in line
    assert b"hunter22" not in line
    found = decode_entry(line)
    assert isinstance(found, DeadLetter)
    assert redrive_fault(Filed(letter=found)) is not None


def test_what_is_around_something_foreign_is_kept() -> None:
    plain, _ = kept({"good": [1, math.inf], "bad": Foreign(), "bytes": b"x"})
    assert isinstance(plain, dict)
    assert plain["good"] == [1, {"$float": "inf"}]
    assert plain["bytes"] == {"$bytes": "eA=="}


class UnreadableError(ValueError):
    def __init__(self) -> None:
        super().__init__("\ud800 is no text")


def test_errors_keep_their_facts_and_any_text_is_readable() -> None:
    info = error_info(NodeTimeoutError("too slow", node="a", timeout_s=math.nan, seen=1 << 70))
    assert (info.kind, info.message, info.retriable) == ("NodeTimeoutError", "too slow", True)
    assert info.facts == {"node": "a", "timeout_s": {"$float": "nan"}, "seen": {"$int": str(1 << 70)}}
    assert error_info(UnreadableError()).message == "\\ud800 is no text"
    decode_entry(encode_entry(letter(error=error_info(UnreadableError()))))
    assert error_line(ValueError("x")) == error_line(error_info(ValueError("x"))) == "ValueError: x"


# --- steps, edits, redrives -------------------------------------------------------------------------------


def test_only_a_pending_letter_is_redriven_or_resolved_and_both_can_be_taken_back() -> None:
    allowed = {(now, wanted) for now in LETTER_STATES for wanted in LETTER_STATES if _may(now, wanted)}
    assert allowed == {
        ("pending", "pending"),
        ("redriven", "redriven"),
        ("resolved", "resolved"),
        ("pending", "redriven"),
        ("pending", "resolved"),
        ("redriven", "pending"),
        ("resolved", "pending"),
    }


def _may(now: Any, wanted: Any) -> bool:
    try:
        return changes_state("x", now, wanted) == (now != wanted)
    except LetterStateError:
        return False


def test_a_step_there_is_not_is_refused_with_what_to_do() -> None:
    with pytest.raises(LetterStateError, match=r"letter x is redriven and cannot become resolved; make it"):
        changes_state("x", "redriven", "resolved")


def test_a_step_says_why_and_when_and_no_step_changes_nothing() -> None:
    before = filed()
    after = step(before, "resolved", at=5.0, note="seen")
    assert (after.state, after.note, after.changed_at) == ("resolved", "seen", 5.0)
    assert step(after, "resolved", at=9.0, note="again") is after
    assert before.state == "pending"


def test_an_edit_keeps_the_original_and_only_a_pending_letter_takes_one() -> None:
    changed = with_edit(filed(record="old"), None, at=7.0)
    assert (changed.record, changed.edited, changed.letter.record) == (None, True, "old")
    assert with_edit(changed, "newer", at=8.0).record == "newer"
    with pytest.raises(LetterStateError, match="its record would not be run"):
        with_edit(step(filed(), "redriven", at=1.0), 1, at=2.0)
    with pytest.raises(ValueFormError):
        with_edit(filed(), {"$what": 1}, at=2.0)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        ({"lossy": {"value": "foreign"}}, None),
        ({"lossy": {"position": "foreign"}}, None),
        ({"undecoded": True}, "raw input"),
        ({"lossy": {"record": "it is a Foreign"}}, "it is a Foreign"),
        ({"lossy": {"key": "it is a tuple"}}, "its key could not be kept"),
        ({"lossy": {"headers": "secrets"}}, "its headers could not be kept"),
    ],
)
def test_a_record_that_is_not_what_flowed_is_never_run_in_silence(
    fields: dict[str, Any], fault: str | None
) -> None:
    found = redrive_fault(filed(**fields))
    assert found is None if fault is None else found is not None and fault in found


def test_an_edit_makes_a_record_that_can_be_run_and_incomplete_leaves_out_the_rest() -> None:
    for unfit in (filed(undecoded=True), filed(lossy={"record": "foreign"})):
        assert redrive_fault(unfit) is not None
        assert redrive_fault(with_edit(unfit, 1, at=1.0)) is None
    keyless = filed(lossy={"key": "a tuple"})
    assert redrive_fault(with_edit(keyless, 1, at=1.0)) is not None
    assert redrive_fault(keyless, incomplete=True) is None
    done = step(filed(), "resolved", at=1.0, note="failed again: id2")
    assert redrive_fault(done, incomplete=True) == "it is resolved (failed again: id2)"


def test_lineage_grows_by_the_letter_that_was_run_again() -> None:
    first = filed(1)
    second = filed(2, lineage=lineage_of(first, redriven_at=200.0), attempts=3)
    third = lineage_of(with_edit(second, 1, at=1.0), redriven_at=300.0)
    assert [each.id for each in third] == ["id1", "id2"]
    assert [each.redriven_at for each in third] == [200.0, 300.0]
    assert [each.edited for each in third] == [False, True]
    assert (third[1].attempts, third[1].error) == (3, "ValueError: no")


def test_letters_are_of_one_record_when_execution_and_record_are_equal() -> None:
    assert root_of(filed(1, node="a")) == root_of(filed(2, node="b"))
    assert root_of(filed(1)) != root_of(filed(1, execution_id="another"))
    assert root_of(filed(1)) != root_of(with_edit(filed(2), {"a": 2}, at=1.0))
    assert root_of(filed(1, record={"a": 1, "b": 2})) == root_of(filed(1, record={"b": 2, "a": 1}))


def test_a_filter_takes_what_all_of_its_parts_take() -> None:
    mine = filed(1)
    for wanted in (
        LetterFilter(),
        LetterFilter(ids=frozenset({"id1", "x"}), nodes=frozenset({"n"}), since=101.0),
        LetterFilter(errors=frozenset({"ValueError"}), states=frozenset({"pending"})),
    ):
        assert wanted.takes(mine), wanted
    for refused in (
        LetterFilter(ids=frozenset({"x"})),
        LetterFilter(nodes=frozenset({"m"})),
        LetterFilter(errors=frozenset({"KeyError"})),
        LetterFilter(states=frozenset({"redriven", "resolved"})),
        LetterFilter(since=101.5),
        LetterFilter(nodes=frozenset({"n"}), since=101.5),
    ):
        assert not refused.takes(mine), refused


# --- letters as a log -------------------------------------------------------------------------------------


def test_of_several_changes_the_last_one_counts_and_the_letter_stays_as_it_was() -> None:
    changes = Changes()
    for change in (
        LetterEdit(id="id1", record=1, at=1.0),
        LetterMark(id="id1", state="resolved", at=2.0, note="a"),
        LetterEdit(id="id1", record=None, at=3.0),
        LetterMark(id="id1", state="pending", at=4.0),
        LetterMark(id="id2", state="redriven", at=5.0),
    ):
        found = decode_entry(encode_entry(change))
        assert found == change
        changes.take(change)
    now = changes.filed(letter(1))
    assert now == Filed(letter=letter(1), edit=None, changed_at=4.0)
    assert changes.filed(letter(2)).state == changes.state_of("id2") == "redriven"
    assert changes.filed(letter(3)) == Filed(letter=letter(3))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b'{"kind":"what"}',
        b"\xff\xfe",
        b'{"kind":"mark","id":"a","state":"odd","at":1}',
        b"[" * 9_999,
    ],
)
def test_what_is_no_entry_is_told_with_its_beginning(line: bytes) -> None:
    with pytest.raises(ParseError, match="no entry of a log of dead letters") as caught:
        decode_entry(line)
    assert "the line begins with" in str(caught.value)


@given(data=st.binary(max_size=60))
def test_no_bytes_are_anything_but_an_entry_or_its_error(data: bytes) -> None:
    try:
        decode_entry(b'{"kind":"mark",' + data)
    except ParseError:
        return
