"""The rules of waits: closed once, never answered late."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.store_errors import StoreConflictError, StoreError, WaitClosedError
from flowcore.waits import OnTimeout, Wait, answered, cancelled, expired, is_due

_TIMES = st.floats(0, 10, allow_nan=False)


def _wait(*, expires_at: float | None = None, on_timeout: OnTimeout = "fail") -> Wait:
    return Wait(
        id="w",
        execution_id="e",
        node="ask",
        kind="approval",
        created_at=0.0,
        expires_at=expires_at,
        on_timeout=on_timeout,
        default="no",
    )


_CLOSERS: list[Callable[[Wait, float], Wait]] = [
    lambda wait, at: answered(wait, "yes", at=at, by="Ann"),
    lambda wait, at: expired(wait, at=at),
    lambda wait, at: cancelled(wait, at=at),
]


@given(st.none() | _TIMES, st.lists(st.tuples(st.sampled_from(_CLOSERS), _TIMES), max_size=6))
def test_whatever_is_tried_a_wait_is_closed_at_most_once(
    expires_at: float | None, attempts: list[tuple[Callable[[Wait, float], Wait], float]]
) -> None:
    wait = _wait(expires_at=expires_at)
    closed: list[Wait] = []
    for close, at in attempts:
        try:
            wait = close(wait, at)
        except StoreError:
            continue
        closed.append(wait)
        assert wait.state != "open"
        assert wait.closed_at == at
    assert len(closed) <= 1
    assert wait == (closed[0] if closed else _wait(expires_at=expires_at))


@given(_TIMES, _TIMES)
def test_at_any_time_a_wait_is_either_due_or_takes_an_answer(expires_at: float, now: float) -> None:
    wait = _wait(expires_at=expires_at)
    if is_due(wait, now):
        with pytest.raises(WaitClosedError):
            answered(wait, "yes", at=now)
        assert expired(wait, at=now).state == "expired"
    else:
        assert answered(wait, "yes", at=now).answer == "yes"
        with pytest.raises(StoreConflictError):
            expired(wait, at=now)


@pytest.mark.parametrize(("on_timeout", "answer"), [("fail", None), ("answer", "no"), ("cancel", None)])
def test_only_a_wait_that_answers_by_itself_has_an_answer_when_it_expires(
    on_timeout: OnTimeout, answer: object
) -> None:
    assert expired(_wait(expires_at=1.0, on_timeout=on_timeout), at=2.0).answer == answer


def test_a_wait_without_an_end_is_never_due() -> None:
    assert not is_due(_wait(), 1e12)


def test_a_refusal_says_what_the_wait_is_and_since_when() -> None:
    with pytest.raises(WaitClosedError, match=r"wait 'w' of node 'ask' is cancelled since 3.0") as refusal:
        answered(cancelled(_wait(), at=3.0), "yes", at=4.0)
    assert refusal.value.facts()["state"] == "cancelled"
    assert not refusal.value.retriable
