"""What headers say of a provider's limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.answers import RateLimits
from flowcore.llm.rate_headers import rate_limits, seconds_of

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1s", 1.0),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723.0),
        ("1d", 86_400.0),
        ("8.64s", 8.64),
        ("17", 17.0),
        ("2026-03-01T12:00:30Z", 30.0),
        ("2026-03-01T11:00:00Z", 0.0),
        ("1772366410", 10.0),
        ("1772366410000", 10.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("3 apples", None),
        ("1" * 30, None),
    ],
)
def test_durations_numbers_and_times_are_read(said: str, seconds: float | None) -> None:
    found = seconds_of(said, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_each_family_of_headers_is_read() -> None:
    openai = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert rate_limits(openai, NOW) == RateLimits(
        requests=60,
        requests_left=59,
        requests_reset_s=1.0,
        tokens=150_000,
        tokens_left=149_984,
        tokens_reset_s=360.0,
    )
    anthropic = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-03-01T12:01:00Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
    }
    assert rate_limits(anthropic, NOW) == RateLimits(
        requests=50, requests_left=0, requests_reset_s=60.0, tokens=1_000
    )
    drafts = [
        {"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-reset": "5"},
        {"ratelimit": "limit=100, remaining=50, reset=5"},
        {"ratelimit": '"default";r=50;t=5', "ratelimit-policy": '"default";q=100;w=10'},
    ]
    for headers in drafts:
        assert rate_limits(headers, NOW) == RateLimits(requests=100, requests_left=50, requests_reset_s=5.0)


def test_headers_that_say_nothing_are_none() -> None:
    assert rate_limits({}, NOW) is None
    assert rate_limits({"content-type": "text/html"}, NOW) is None
    assert rate_limits({"x-ratelimit-limit-requests": "many"}, NOW) is None


names = st.sampled_from(
    ["ratelimit", "ratelimit-policy", "ratelimit-reset", "x-ratelimit-reset-tokens", "x-ratelimit-limit"]
)


@given(st.dictionaries(names, st.text(alphabet='0123456789.smhd;,=rtq"TZ:- ', max_size=30)))
def test_no_header_breaks_the_reading(headers: dict[str, str]) -> None:
    rate_limits(headers, NOW)
