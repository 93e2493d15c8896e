"""What GraphBit's workflows must answer: each node the text the loopback server gives for it.

Standard library only: the harness, which lives in our environment, asks for these.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import data


def done(names: Sequence[str]) -> dict[str, str]:
    """What the server answers for each node."""
    return {name: f"done {name}" for name in names}


def dag(requests: int, **_: object) -> list[dict[str, str]]:
    """All ten nodes' answers, for each request."""
    return [done(data.names("n", len(data.DAG_PARENTS)))] * requests


def fan_out(width: int, **_: object) -> dict[str, str]:
    """All nodes' answers."""
    return done(["start", *data.names("x", width), "total"])


def independent(width: int, **_: object) -> dict[str, str]:
    """All nodes' answers."""
    return done(data.names("x", width))


def sibling(**_: object) -> dict[str, str]:
    """The three nodes' answers."""
    return done(["slow", "fast", "child"])
