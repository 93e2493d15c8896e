"""Bytewax: a dataflow run by one worker in this process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.work import Run

BATCH = 1024
"""Rows the source hands over at once: a large batch is Bytewax at its fastest."""


@contextmanager
def chain(records: int) -> Generator[Run]:
    """Four operators from a source to a sink in memory; a flow runs once, so each run builds one."""
    rows = data.rows(records)

    def run() -> list[data.Row]:
        kept: list[data.Row] = []
        flow = Dataflow("chain")
        stream: Any = op.input("rows", flow, TestingSource(rows, batch_size=BATCH))
        stream = op.map("with_total", stream, data.with_total)
        stream = op.filter("is_large", stream, data.is_large)
        stream = op.map("with_fee", stream, data.with_fee)
        stream = op.map("with_class", stream, data.with_class)
        op.output("kept", stream, TestingSink(kept))
        run_main(flow)
        return kept

    yield run
