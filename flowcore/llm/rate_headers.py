"""What the headers of an answer say of its limits.

Owns: `rate_limits`, `seconds_of`. Does not own: keeping to them (the runtime).

Pure. Always holds: a header that cannot be read is taken as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from flowcore.llm.answers import RateLimits

_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|us|µs|ns|d|h|m|s))+")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
_PIECE: Final = re.compile(r"([0-9.]+)(ms|us|µs|ns|d|h|m|s)")
_UNITS: Final = {
    "d": 86_400.0,
    "h": 3_600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_EPOCH: Final = 1e9
"""A number of seconds beyond this is a time, not a duration."""
_EPOCH_MS: Final = 1e12

# Each family: names of limit, left and reset, of requests and of tokens. The first family that says something
# about requests or tokens counts for them.
_REQUESTS: Final = (
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    (
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
)
_TOKENS: Final = (
    ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    (
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ),
    (
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
)

_Said = tuple[int | None, int | None, float | None]


def rate_limits(headers: Mapping[str, str], now: datetime) -> RateLimits | None:
    """Limits, what is left of them, and when they are whole again; None when no header says anything.

    Args:
        headers: names in lower case: OpenAI's `x-ratelimit-*`, Anthropic's `anthropic-ratelimit-*`, or those
            of the draft draft-ietf-httpapi-ratelimit-headers of the IETF (`ratelimit`, `ratelimit-policy`,
            and the three of its older versions).
        now: what a time is counted from.
    """
    if not any("ratelimit" in name for name in headers):
        return None
    requests = _of(headers, _REQUESTS, now) or _drafted(headers)
    tokens = _of(headers, _TOKENS, now)
    if requests is None and tokens is None:
        return None
    most, left, reset_s = requests or (None, None, None)
    most_tokens, tokens_left, tokens_reset_s = tokens or (None, None, None)
    return RateLimits(
        requests=most,
        requests_left=left,
        requests_reset_s=reset_s,
        tokens=most_tokens,
        tokens_left=tokens_left,
        tokens_reset_s=tokens_reset_s,
    )


def _of(
    headers: Mapping[str, str], families: tuple[tuple[str, str, str], ...], now: datetime
) -> _Said | None:
    for limit, left, reset in families:
        said = (
            _count(headers.get(limit)),
            _count(headers.get(left)),
            seconds_of(headers.get(reset, ""), now),
        )
        if said != (None, None, None):
            return said
    return None


def _drafted(headers: Mapping[str, str]) -> _Said | None:
    """`ratelimit: "default";r=50;t=30` with `ratelimit-policy: "default";q=100;w=60`, or `limit=100, ...`."""
    found = _parameters(headers.get("ratelimit", ""))
    policy = _parameters(headers.get("ratelimit-policy", ""))
    reset = _count(found.get("t") or found.get("reset"))
    said = (
        _count(policy.get("q") or found.get("limit")),
        _count(found.get("r") or found.get("remaining")),
        None if reset is None else float(reset),
    )
    return None if said == (None, None, None) else said


def _parameters(text: str) -> dict[str, str]:
    pairs = (piece.partition("=") for piece in re.split(r"[;,]", text[:1_000]))
    found: dict[str, str] = {}
    for name, equals, value in pairs:
        if equals:
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def _count(text: str | None) -> int | None:
    text = "" if text is None else text.strip()
    return int(float(text)) if _NUMBER.fullmatch(text) else None


def seconds_of(text: str, now: datetime) -> float | None:
    """Seconds from `now`: `6m0s`, `20ms`, `1.5` (seconds), a Unix time, or a time of RFC 3339; at least 0."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number < _EPOCH:
            return number
        return max(0.0, (number / 1_000 if number >= _EPOCH_MS else number) - now.timestamp())
    if _DURATION.fullmatch(text):
        total = sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(text))
        return total if math.isfinite(total) else None
    if _TIME.match(text) is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
