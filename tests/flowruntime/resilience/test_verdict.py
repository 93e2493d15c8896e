"""What an error says of the thing that was called."""

from __future__ import annotations

import pytest

from flowcore.errors import (
    CircuitOpenError,
    ConnectorUnavailableError,
    HttpStatusError,
    HttpUnavailableError,
    NodeTimeoutError,
)
from flowruntime.resilience.verdict import verdict


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (None, "up"),
        (ValueError("bad row"), "up"),
        (HttpStatusError("no such page", status=404), "up"),
        (HttpUnavailableError("down", status=503), "down"),
        (HttpUnavailableError("slow down", status=429, retry_after_s=2), "none"),
        (NodeTimeoutError("late"), "down"),
        (ConnectorUnavailableError("gone"), "down"),
        (ConnectionRefusedError(), "down"),
        (CircuitOpenError("open"), "none"),
    ],
)
def test_only_an_outage_says_down(error: Exception | None, says: str) -> None:
    assert verdict(error) == says
