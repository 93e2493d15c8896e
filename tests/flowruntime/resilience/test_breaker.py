"""The circuit breaker: it opens soon, probes once, and never trips on what is no outage."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ValidationFailedError
from flowcore.policies import Breaker
from flowruntime.resilience.breaker import Circuit, Ticket

POLICY = Breaker(failures=3, window=5, period=timedelta(seconds=60), open_for=timedelta(seconds=15))


def admitted(circuit: Circuit, now: float) -> Ticket:
    ticket = circuit.admit(now)
    assert ticket is not None
    return ticket


def opened(now: float = 0.0, **asked: float) -> Circuit:
    circuit = Circuit(POLICY)
    for _ in range(POLICY.failures):
        circuit.failed(admitted(circuit, now), now, **asked)
    assert circuit.state == "open"
    return circuit


def test_it_opens_with_the_last_failure_it_bears_and_not_before() -> None:
    circuit = Circuit(POLICY)
    changes = [circuit.failed(admitted(circuit, 0.0), 0.0) for _ in range(POLICY.failures)]
    assert changes == [False, False, True]
    assert circuit.admit(14.9) is None
    assert circuit.wait_s(5.0) == 10.0


def test_good_calls_push_failures_out_of_the_window() -> None:
    circuit = Circuit(POLICY)
    for failed in (True, True, False, False, False, True, True):
        ticket = admitted(circuit, 0.0)
        (circuit.failed if failed else circuit.succeeded)(ticket, 0.0)
    assert circuit.state == "closed"


def test_failures_of_long_ago_are_forgotten() -> None:
    circuit = Circuit(POLICY)
    for now in (0.0, 0.0, 61.0, 61.0):
        circuit.failed(admitted(circuit, now), now)
    assert circuit.state == "closed"


def test_of_a_hundred_callers_at_half_open_one_is_let_through() -> None:
    circuit = opened()
    assert sum(circuit.admit(15.0) is not None for _ in range(100)) == 1


def test_the_probe_decides() -> None:
    circuit = opened()
    assert circuit.failed(admitted(circuit, 15.0), 16.0)
    assert circuit.admit(30.0) is None
    assert circuit.succeeded(admitted(circuit, 31.0), 32.0)
    assert circuit.state == "closed"
    assert circuit.opened == 2


def test_a_probe_without_a_verdict_leaves_its_place_to_the_next_call() -> None:
    circuit = opened()
    circuit.given_up(admitted(circuit, 15.0))
    assert circuit.state == "half_open"
    assert circuit.admit(15.0) is not None
    assert circuit.admit(15.0) is None


def test_calls_from_before_it_opened_have_no_say() -> None:
    circuit = Circuit(POLICY)
    early = [admitted(circuit, 0.0) for _ in range(5)]
    for _ in range(POLICY.failures):
        circuit.failed(admitted(circuit, 0.0), 0.0)
    assert not circuit.succeeded(early[0], 1.0)
    probe = admitted(circuit, 15.0)
    assert not circuit.failed(early[1], 15.0)
    circuit.given_up(early[2])
    assert circuit.admit(15.0) is None
    assert circuit.succeeded(probe, 15.0)


def test_it_stays_open_as_long_as_the_server_asked() -> None:
    circuit = opened(retry_after_s=120.0)
    assert circuit.wait_s(0.0) == 120.0


def test_more_failures_than_the_window_holds_are_refused() -> None:
    with pytest.raises(ValidationFailedError, match="must not be more than window"):
        Breaker(failures=6, window=5)


@given(st.lists(st.sampled_from(["call", "ok", "down", "cancel", "wait"]), max_size=60))
def test_whatever_happens_at_most_one_probe_is_out_and_an_open_circuit_lets_nobody_through(
    steps: list[str],
) -> None:
    circuit, now = Circuit(POLICY), 0.0
    out: list[Ticket] = []
    for step in steps:
        match step:
            case "call":
                before = (circuit.state, circuit.wait_s(now))
                ticket = circuit.admit(now)
                if ticket is not None:
                    assert before[0] != "open" or before[1] == 0.0
                    out.append(ticket)
            case "wait":
                now += 4.0
            case _ if out:
                ticket = out.pop(0)
                if step == "ok":
                    circuit.succeeded(ticket, now)
                elif step == "down":
                    circuit.failed(ticket, now)
                else:
                    circuit.given_up(ticket)
            case _:
                pass
        if circuit.state == "half_open":
            assert sum(ticket.probe and ticket.era == circuit._era for ticket in out) <= 1
