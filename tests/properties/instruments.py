"""Instruments around the running engine: they see every frame, settlement and permit, and change nothing.

Owns: `Watch`: wraps the engine's edges, kernels, chains and workers while entered, and says what was wrong.
Does not own: what the workflow computes (tests.differential), faults and times (scenario).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self, cast
from unittest.mock import patch

from flowcore.frame import Frame, Opened
from flowruntime.compile.chain import Chain
from flowruntime.execute.worker import Worker
from flowruntime.operators.edge import Edge
from flowruntime.operators.kernel import Kernel


class Watch:
    """Enter it, run, leave it, then ask.

    Args:
        trace: every frame is noted here with the loop's time, to compare two runs.
    """

    def __init__(self, trace: list[Any] | None = None) -> None:
        self._trace = trace
        self.faults: list[str] = []
        self.opened: list[tuple[Kernel, Opened]] = []
        self.workers: list[Worker] = []
        self.settled: dict[Opened, list[int]] = {}
        self.edges: list[tuple[Kernel, str, Edge]] = []
        """Kernel, scope of its rows, edge."""
        self.covered: dict[Edge, dict[Opened, list[int]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for owner, name, wrap in (
            (Kernel, "open_root", self._open),
            (Kernel, "open_child", self._open),
            (Chain, "__init__", self._chain),
            (Worker, "__init__", self._worker),
            (Edge, "emit", self._emit),
        ):
            self._stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    # --- wrappers ---------------------------------------------------------------------------------------

    def _open(self, real: Callable[..., Opened]) -> Callable[..., Opened]:
        def open_frame(kernel: Kernel, *args: Any, **kwargs: Any) -> Opened:
            opened = real(kernel, *args, **kwargs)
            self.opened.append((kernel, opened))
            rows = self.settled[opened] = [0] * opened.size
            tell: Any = opened.ledger._on_settled

            def settled(ledger: Any, which: Any) -> None:
                for row in which:
                    rows[row] += 1
                    if rows[row] > 1:
                        self.faults.append(f"row {row} of {opened} was settled {rows[row]} times")
                tell(ledger, which)

            opened.ledger._on_settled = settled
            return opened

        return open_frame

    def _chain(self, real: Callable[..., None]) -> Callable[..., None]:
        def init(chain: Any, program: Any, kernel: Any, *args: Any, **kwargs: Any) -> None:
            real(chain, program, kernel, *args, **kwargs)
            for index, operator in chain.operators.items():
                scope = program.plan.stages[index].scope.id
                self.edges += [(kernel, scope, edge) for edge in operator.edges]
            for stage in program.plan.entries:
                self.edges += [(kernel, stage.scope.id, edge) for edge in chain.entries[stage.id]._edges]

        return init

    def _worker(self, real: Callable[..., None]) -> Callable[..., None]:
        def init(worker: Worker, *args: Any, **kwargs: Any) -> None:
            real(worker, *args, **kwargs)
            self.workers.append(worker)

        return init

    def _emit(self, real: Callable[..., None]) -> Callable[..., None]:
        def emit(edge: Edge, item: Any) -> None:
            if isinstance(item, Frame):
                self._cover(edge, cast("Frame[Any]", item))
            real(edge, item)

        return emit

    def _cover(self, edge: Edge, frame: Frame[Any]) -> None:
        if self._trace is not None:
            now = asyncio.get_running_loop().time()
            self._trace.append(
                (now, frame.opened.scope, frame.opened.seq, tuple(frame.covered), repr(frame.values))
            )
        rows = self.covered.setdefault(edge, {}).setdefault(frame.opened, [0] * frame.opened.size)
        for row in frame.covered:
            rows[row] += 1
            if rows[row] > 1:
                self.faults.append(f"row {row} of {frame.opened} was covered {rows[row]} times on one edge")
        present = list(frame.present)
        if len(present) != len(frame.values) or present != sorted(set(present)):
            self.faults.append(f"{frame!r} has rows {present} for {len(frame.values)} values")
        if not set(present) <= set(frame.covered):
            self.faults.append(f"{frame!r} has values of rows it does not cover")
        if frame.failed and not set(frame.failed) <= set(frame.covered) - set(present):
            self.faults.append(f"{frame!r} says rows failed that it does not cover, or has values of")

    # --- what must hold at the end ----------------------------------------------------------------------

    def permits_returned(self) -> list[str]:
        """No limit is in use."""
        return [
            f"limit {limit.name} still has {limit.in_use} permits out"
            for worker in self.workers
            for limit in worker.limits.values()
            if limit.in_use
        ]

    def credit_returned(self) -> list[str]:
        """Nothing is charged any more, however the run has ended."""
        return [
            f"budget has {budget.rows_in_flight} rows, {budget.bytes_in_flight} bytes out"
            for budget in (worker.budget for worker in self.workers)
            if budget.rows_in_flight or budget.bytes_in_flight or budget.grown_bytes
        ]

    def all_settled(self) -> list[str]:
        """Every row settled once, on every edge of its scope covered once."""
        faults = [
            f"{opened} has unsettled rows: {self.settled[opened]}"
            for _, opened in self.opened
            if set(self.settled[opened]) != {1}
        ]
        for kernel, opened in self.opened:
            for owner, scope, edge in self.edges:
                if owner is kernel and scope == opened.scope:
                    rows = self.covered.get(edge, {}).get(opened, [])
                    if set(rows) != {1}:
                        faults.append(f"{opened} was covered {rows} on an edge of its scope")
        return faults
