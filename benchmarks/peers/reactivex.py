"""reactivex as it is used by hand: one operator per function, every record an element."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import reactivex
from reactivex import operators as ops
from reactivex.subject import Subject

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.work import Run


@contextmanager
def chain(records: int, *, push: bool) -> Generator[Run]:
    """Four operators; rows are pushed into a Subject, as a stream arrives, or pulled by `from_iterable`."""
    rows = data.rows(records)
    operators = (
        ops.map(data.with_total), ops.filter(data.is_large), ops.map(data.with_fee), ops.map(data.with_class)
    )  # fmt: skip

    def run_pushed() -> list[data.Row]:
        kept: list[data.Row] = []
        subject: Subject[data.Row] = Subject()
        subject.pipe(*operators).subscribe(kept.append)
        for row in rows:
            subject.on_next(row)
        subject.on_completed()
        return kept

    def run_pulled() -> list[data.Row]:
        kept: list[data.Row] = []
        reactivex.from_iterable(rows).pipe(*operators).subscribe(kept.append)
        return kept

    yield run_pushed if push else run_pulled
