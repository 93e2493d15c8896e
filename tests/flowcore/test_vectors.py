"""Vectors as values: packed float32 that pass through anything that carries bytes."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import CoercionError
from flowcore.plain import from_plain, to_plain
from flowcore.vectors import floats_of, vector_of


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_of_float32_come_back_as_they_were(numbers: list[float]) -> None:
    assert floats_of(vector_of(numbers)) == numbers


def test_a_vector_is_little_endian_on_every_machine() -> None:
    assert vector_of([1.0, -2.5]) == struct.pack("<2f", 1.0, -2.5)


def test_a_vector_crosses_into_a_worker_and_into_a_file_as_it_is() -> None:
    vector = vector_of([0.1, 0.2])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(vector)) == vector
    assert from_plain(to_plain(vector)) == vector


@pytest.mark.parametrize("numbers", [["a"], [None]])
def test_what_is_no_number_is_refused(numbers: list[float]) -> None:
    with pytest.raises(CoercionError, match="not the numbers of a vector"):
        vector_of(numbers)


@pytest.mark.parametrize("number", [1e39, float("inf"), float("nan")])
def test_a_number_float32_cannot_hold_is_refused_with_its_place(number: float) -> None:
    with pytest.raises(CoercionError, match="number 1 of a vector is"):
        vector_of([0.0, number])


def test_bytes_that_are_no_vector_are_refused() -> None:
    with pytest.raises(CoercionError, match="7 bytes are no vector"):
        floats_of(b"1234567")
