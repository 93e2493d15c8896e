"""The text forms of stores: nothing is lost, nothing that was not written here is read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.states import Cancelled, Completed, Failed, Partial, Paused, Pending, Running, WorkflowState
from flowcore.store_errors import StoreInputError
from flowcore.values import Json, SecretRef, same_value
from flowruntime.state.store.codec import (
    MAX_VALUE_BYTES,
    UnreadableError,
    read_cursor,
    read_state,
    read_value,
    read_workflow,
    row_sum,
    write_cursor,
    write_state,
    write_value,
    write_workflow,
)
from flowruntime.state.store.entries import STATES, JournalEntry, WorkflowHead, new_execution
from flowruntime.state.store.rows import (
    execution_head,
    journal_entry,
    journal_row,
    new_execution_row,
    new_wait_row,
    stored_execution,
    stored_wait,
    workflow_head,
    workflow_row,
)
from flowruntime.testing.conformance.store_subject import a_wait, workflow

TEXTS = st.text(st.characters(codec=None), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**90), 2**90)
    | st.floats()
    | TEXTS
    | st.binary(max_size=8)
    | st.binary(max_size=8).map(Json)
    | st.text(min_size=1, max_size=4).map(SecretRef),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4).map("${}".format), inner, max_size=3)
    ),
    max_leaves=8,
)
STATE_VALUES: st.SearchStrategy[WorkflowState] = st.one_of(
    st.sampled_from([Pending(), Running(), Completed(), Partial()]),
    TEXTS.map(Paused),
    TEXTS.map(Cancelled),
    st.dictionaries(st.text(max_size=4), VALUES, max_size=3).map(lambda error: Failed({**error})),
)


@given(VALUES)
def test_a_value_comes_back_and_its_text_fits_every_database(value: object) -> None:
    text = write_value(value, what="it")
    assert same_value(read_value(text), value)
    assert "\0" not in text
    text.encode()


@given(STATE_VALUES)
def test_a_state_comes_back_with_its_reason_or_error(state: WorkflowState) -> None:
    back = read_state(write_state(state))
    assert type(back) is type(state)
    assert same_value(msgspec.structs.asdict(back), msgspec.structs.asdict(state))


def test_every_state_has_a_name() -> None:
    assert STATES == ("pending", "running", "paused", "completed", "partial", "failed", "cancelled")


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
def test_a_cursor_comes_back_exactly(time: float, id: str) -> None:
    """Of an id that can be stored: none holds a NUL, which no database takes."""
    assert read_cursor(write_cursor("waits", time, id), "waits", float, str) == (time, id)


@pytest.mark.parametrize("kind", ["executions", "wait"])
def test_a_cursor_of_something_else_is_refused(kind: str) -> None:
    with pytest.raises(StoreInputError, match="is not what a page of"):
        read_cursor(write_cursor("waits", 1.0, "w"), kind, float, str)


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_texts_written_elsewhere_are_told(data: bytes) -> None:
    """Anything at all is either a value or refused in one way."""
    try:
        text = data.decode()
        read_value(text)
    except (UnreadableError, UnicodeDecodeError):
        pass
    with pytest.raises(UnreadableError):
        read_workflow(data.decode(errors="replace"), "0" * 64)
    with pytest.raises(UnreadableError):
        read_state(data.decode(errors="replace"))


def test_a_value_beyond_the_bound_is_refused() -> None:
    with pytest.raises(StoreInputError, match=f"more than {MAX_VALUE_BYTES}; keep it elsewhere"):
        write_value("x" * MAX_VALUE_BYTES, what="inputs of execution 'e1'")
    assert write_value("x" * (MAX_VALUE_BYTES - 2), what="it")


def test_a_workflow_with_another_hash_is_refused() -> None:
    text, hash = write_workflow(workflow())
    assert read_workflow(text, hash) == workflow()
    with pytest.raises(UnreadableError, match="its hash is not"):
        read_workflow(text.replace("triage", "tribge"), hash)


@given(st.data())
def test_a_row_with_one_column_changed_is_never_read(data: st.DataObject) -> None:
    head = WorkflowHead(id="w", version=1, name="w", hash="h", created_at=1.0)
    execution = new_execution("e1", head, {"a": 1}, at=1.0, running=True)
    entry = JournalEntry(execution_id="e1", node="n", value=1)
    row, read = data.draw(
        st.sampled_from(
            [
                (workflow_row(head), workflow_head),
                (new_execution_row(execution), stored_execution),
                (new_execution_row(execution)[:12], execution_head),
                (new_wait_row(a_wait(expires_at=5.0)), stored_wait),
                (journal_row(entry), journal_entry),
            ]
        )
    )
    assert read(row)
    place = data.draw(st.integers(0, len(row) - 1))
    damaged = data.draw(_other_than(row[place]))
    with pytest.raises(UnreadableError):
        read((*row[:place], damaged, *row[place + 1 :]))


def _other_than(column: object) -> st.SearchStrategy[object]:
    others: dict[type, st.SearchStrategy[object]] = {
        str: st.text(max_size=5) | st.none() | st.binary(max_size=3),
        int: st.integers(0, 2**63 - 1) | st.none(),
        float: st.floats(allow_nan=False) | st.none(),
        type(None): st.floats(allow_nan=False) | st.text(max_size=3),
    }
    return others[type(column)].filter(lambda other: not same_value(other, column))


def test_sums_tell_kinds_apart() -> None:
    assert len({row_sum(1), row_sum(1.0), row_sum("1"), row_sum(None), row_sum(b"1")}) == 5
