"""Ids: what may name a node, and the layout of a UUIDv7."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.ids import InvalidIdError, check_node_id, check_port_name, new_uuid7, suggest_node_id


@pytest.mark.parametrize("text", ["a", "_", "fetch", "fetch-2", "_3", "A" * 128])
def test_readable_names_are_node_ids(text: str) -> None:
    assert check_node_id(text) == text


@pytest.mark.parametrize("text", ["", "1x", "a b", "a.b", "é", "-a", "a\n", "A" * 129])
def test_other_texts_are_refused_with_the_text_and_one_that_would_do(text: str) -> None:
    with pytest.raises(InvalidIdError, match="node id") as caught:
        check_node_id(text)
    assert check_node_id(caught.value.facts()["suggestion"]) if text else True  # type: ignore[arg-type]


def test_a_port_name_takes_no_hyphen() -> None:
    with pytest.raises(InvalidIdError, match="port name 'a-b'"):
        check_port_name("a-b")


@given(st.text())
def test_every_suggestion_is_a_node_id(text: str) -> None:
    assert check_node_id(suggest_node_id(text))


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_uuid7_has_version_variant_and_time_in_place(unix_ms: int, noise: bytes) -> None:
    made = uuid.UUID(new_uuid7(unix_ms, noise))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == unix_ms


def test_uuid7s_sort_by_time() -> None:
    texts = [new_uuid7(ms, b"\xff" * 10) for ms in (0, 1, 10**12, 10**13)]
    assert texts == sorted(texts)


@pytest.mark.parametrize(("unix_ms", "noise"), [(-1, b"0" * 10), (2**48, b"0" * 10), (0, b"0" * 9)])
def test_a_uuid7_of_wrong_parts_is_refused(unix_ms: int, noise: bytes) -> None:
    with pytest.raises(ValueError, match="must"):
        new_uuid7(unix_ms, noise)
