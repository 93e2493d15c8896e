"""Streams under random makers, readers, failures and ends; and a test of this tester."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest

from flowcore.settlement import Ledger
from flowruntime.substream.production import Production
from flowruntime.substream.rows import HeldRow, RowStreams
from tests.properties.streaming import play

_SEEDS = range(30_000, 30_060)
_CAUGHT_WITHIN = 60


@pytest.mark.parametrize("seed", _SEEDS)
def test_rows_settle_once_and_every_producer_is_closed_whatever_happens(seed: int) -> None:
    faults = play(seed)
    assert not faults, f"seed {seed}: {faults[:5]}\nfrom tests.properties.streaming import play; play({seed})"


async def _nothing_later(*_: object) -> None:
    return None


def _nothing(*_: object) -> None:
    return None


def _true(*_: object) -> bool:
    return True


def _patched(owner: type, name: str, stand_in: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: patch.object(owner, name, stand_in)


BROKEN: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a stream nobody will read is left alone": _patched(HeldRow, "tidy", _nothing),
    "a row does not wait for its streams": _patched(Ledger, "hold", _true),
    "a row is never let go": _patched(Ledger, "let_go", _nothing),
    "a closed chain keeps its streams": _patched(RowStreams, "close", _nothing),
    "producers are not cleaned up": _patched(Production, "_clean_up", _nothing_later),
}
"""What single tests of behaviour find is not repeated here."""


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_engine_is_caught(name: str) -> None:
    with BROKEN[name]():
        assert any(play(seed) for seed in range(_CAUGHT_WITHIN))
