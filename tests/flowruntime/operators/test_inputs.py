"""Signals of several inputs become one: watermarks by minimum, barriers and the end by all."""

from __future__ import annotations

from flowcore.frame import END, Barrier, Watermark
from flowruntime.operators.base import Inputs


def test_one_input_passes_everything() -> None:
    inputs = Inputs(1)
    for signal in (Watermark(1), Barrier(1), END):
        assert inputs.receive(0, signal) == (signal,)


def test_a_watermark_is_the_lowest_and_never_goes_back() -> None:
    inputs = Inputs(2)
    assert inputs.receive(0, Watermark(5)) == ()
    assert inputs.receive(1, Watermark(3)) == (Watermark(3),)
    assert inputs.receive(1, Watermark(4)) == (Watermark(4),)
    assert inputs.receive(0, Watermark(4)) == ()
    assert inputs.receive(1, Watermark(9)) == ()


def test_a_barrier_passes_when_every_input_has_brought_it() -> None:
    inputs = Inputs(3)
    assert inputs.receive(0, Barrier(1)) == ()
    assert inputs.receive(2, Barrier(1)) == ()
    assert inputs.receive(1, Barrier(1)) == (Barrier(1),)


def test_an_input_that_has_ended_holds_nothing_up() -> None:
    inputs = Inputs(2)
    assert inputs.receive(0, Barrier(1)) == ()
    assert inputs.receive(0, Watermark(7)) == ()
    assert inputs.receive(1, END) == (Barrier(1), Watermark(7))
    assert inputs.receive(0, Barrier(2)) == (Barrier(2),)
    assert inputs.receive(0, END) == (END,)
