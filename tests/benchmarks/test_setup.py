"""The peers' environment: what is pinned, what is reported."""

from __future__ import annotations

import pytest

from benchmarks.environment import COMPANIONS, DISTRIBUTIONS
from benchmarks.setup import PINS, pinned, reason


@pytest.mark.parametrize(
    "distribution",
    sorted({*DISTRIBUTIONS.values(), *(name for names in COMPANIONS.values() for name in names)}),
)
def test_every_peer_is_pinned(distribution: str) -> None:
    assert pinned(distribution, PINS.read_text(encoding="utf-8")).startswith(f"{distribution}==")


def test_a_peer_without_a_pin_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(LookupError, match=r"'bytewax' is not pinned .* compile it again"):
        pinned("bytewax", "langgraph==1.0\n    # via nothing\n")


def test_the_reason_of_a_failed_installation_is_its_last_lines_in_one() -> None:
    complaint = (
        "  x No solution:\n  \u2570\u2500\u25b6 Because bytewax has no wheels,\n    it cannot be used.\n\n"
    )
    assert reason(complaint) == "Because bytewax has no wheels, it cannot be used."
