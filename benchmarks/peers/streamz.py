"""streamz: a pipeline that is pushed one row at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamz import Stream

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.work import Run


@contextmanager
def chain(records: int) -> Generator[Run]:
    """Four operators and a sink, built once; `emit` for each row."""
    rows = data.rows(records)
    kept: list[data.Row] = []
    source = Stream()
    source.map(data.with_total).filter(data.is_large).map(data.with_fee).map(data.with_class).sink(
        kept.append
    )

    def run() -> list[data.Row]:
        kept.clear()
        for row in rows:
            source.emit(row)
        return list(kept)

    yield run
