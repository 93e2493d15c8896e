"""Durations and sizes as text, exact in both directions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.durations import format_duration, parse_duration, parse_size


@given(st.timedeltas(min_value=timedelta(0)))
def test_a_duration_is_read_back_exactly(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1h30m", 5400), ("0.5s", 0.5), ("250ms", 0.25), ("2d", 172_800)]
)
def test_durations_are_written_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "1:30", "30 s", "1m1h", "1s1s", "-1s", "0.1us", "1e3s", "999999999999999d", "٣s"]
)
def test_what_is_no_exact_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 64 << 20), ("10 kB", 10_000), ("1.5KiB", 1536), ("7B", 7)]
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["64", "64M", "1.0001kB", "-1B", "64 mib"])
def test_what_is_no_whole_number_of_bytes_is_refused(text: str) -> None:
    if text == "1.0001kB":
        with pytest.raises(ValueError, match="whole number"):
            parse_size(text)
    else:
        with pytest.raises(ValueError, match="must be a number of bytes"):
            parse_size(text)
