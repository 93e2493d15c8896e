"""What the operators of one chain share: opening frames, settling rows, reporting failures.

Owns: `Kernel`, and `Listener`, what the chain's driver (a task, or a request chain) must answer.
Does not own: reading, committing, policies of a run (flowruntime.execute).

Always holds: settling a row never pushes rows; every failure is counted and reported once; after `close`
nothing that still comes in is worked on; what is charged for a row of a stream is given back when it is
settled, or when its chain is taken down.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import UNSET

from flowcore.frame import Failure, Opened
from flowcore.settlement import Ledger
from flowruntime.compile.sentinels import ABSENT
from flowruntime.execute.counts import NodeCounts
from flowruntime.flowcontrol.precedence import Precedence
from flowruntime.operators.edge import Depth
from flowruntime.resilience.containment import contained
from flowruntime.substream.live import LiveStream
from flowruntime.substream.production import Production
from flowruntime.substream.rows import RowStreams

if TYPE_CHECKING:
    from flowcore.context import OnClose
    from flowcore.events import FailureHandling
    from flowruntime.compile.plan import Plan, Scope
    from flowruntime.compile.resolved import ResolvedFallback
    from flowruntime.execute.execution import Execution
    from flowruntime.operators.host import Host, Letters, RowHolds, RowJournal

T = TypeVar("T")


class Listener(Protocol):
    """The driver of a chain."""

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        """Rows of a root scope are settled."""
        ...

    def failed(self, failure: Failure) -> None:
        """A row failed for good, whatever the policy says of it."""
        ...

    def again(self, failure: Failure, opened: Opened, row: int) -> bool:
        """A row failed where the policy says to retry the workflow: has its record an attempt left?"""
        ...

    def stop(self, failure: Failure, opened: Opened, row: int) -> None:
        """A row failed where the policy says to stop the workflow."""
        ...

    def leave(self, opened: Opened, row: int) -> bool:
        """A run that is being drained is to leave the record of a row for the next run. Whether it does."""
        ...

    def crashed(self, error: BaseException) -> None:
        """The engine itself failed; nothing of this chain can be trusted any more."""
        ...

    def execution(self, opened: Opened, row: int) -> Execution:
        """The execution a root row belongs to, made on first use."""
        ...


ChildSettled = Callable[[Opened, Sequence[int]], None]

_STALLED_CHECK_S = 0.01


class Kernel:
    """Shared by the operators of one chain; used on the loop thread only."""

    def __init__(
        self, plan: Plan, worker: Host, listener: Listener, *, recording: bool, task: str | None
    ) -> None:
        self.plan = plan
        self.worker = worker
        self.listener = listener
        self.recording = recording
        """Outcomes and outputs of each execution are kept (requests), not only counted."""
        self.task = task
        self.run = ""
        """Of which run the task is."""
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.depth = Depth(self._crash)
        self.closed = False
        self.counts: dict[str, NodeCounts] = {node_id: NodeCounts() for node_id in plan.graph.nodes}
        self.handled = {
            connection.from_node for connection in plan.graph.connections if connection.kind == "error"
        }
        self._seqs: dict[str, int] = {}
        self.run_attributes: Mapping[str, Any] = {}
        """Of a continuous run, for middleware; those of a request are its execution's."""
        self.journal: RowJournal | None = None
        """Where executions survive their process: what keeps and recalls their calls."""
        self.holds: RowHolds | None = None
        """Of a continuous run that may hold rows: what stores them."""
        self.keeps_failures = False
        """The first failure of each root record stays with it until it is settled."""
        self.in_progress = 0
        """Rows some stage is working on or holds on its own account (not for want of credit)."""
        self.streams: RowStreams | None = None
        """The live streams of rows; None until a node makes the first one, so that others need not ask."""
        self.oldest: Callable[[], tuple[int, int] | None] = _unknown
        """Frame and row of the oldest unsettled record, in streams; requests never wait for others."""
        self.gathering: list[Callable[[], None]] = []
        """Stages that gather rows: each called lets go what it has."""
        self.drain: Callable[[object], None] | None = None
        """Ends the run of which this is a task once what is in flight is done; None for requests."""
        self.journaled: dict[int, str] = {}
        """Records with calls of models in the journal, by their number in the source, until committed."""
        self._stalled = False
        self._rows_charged = 0
        """Of child rows; those of root records are the task's."""
        self._bytes_charged = 0
        self._taken_down = False

    @property
    def keeps_places(self) -> bool:
        """Rows know their lineage (`Opened.path`)."""
        return self.journal is not None or self.holds is not None

    # --- scopes ---------------------------------------------------------------------------------------

    def open_root(self, scope: Scope, size: int, **columns: Any) -> Opened:
        """A frame of a source or a request, with its ledger."""
        opened = Opened(scope.id, self._next(scope.id), size, **columns)
        opened.ledger = Ledger(size, scope.leaves, self._root_settled, opened)
        return opened

    def open_again(self, scope: Scope, root: Opened, row: int, settled: Callable[[], None]) -> Opened:
        """A root record once more, as a frame of its own; what is asked of its root is answered by `root`.

        Args:
            scope: of the root.
            root: the frame the source gave, in which the record stays unsettled.
            row: in that frame.
            settled: told when everything of this attempt has ended.
        """
        opened = Opened(scope.id, self._next(f"{scope.id} again"), 1, parents=[(root, row)])

        def over(ledger: Ledger, rows: Sequence[int]) -> None:
            del ledger
            if self.closed:
                return
            self.discharge(opened, rows)
            settled()

        opened.ledger = Ledger(1, scope.leaves, over, opened)
        return opened

    def open_child(
        self,
        scope: Scope,
        parents: Sequence[tuple[Opened, int]],
        child_settled: ChildSettled,
        sizes: list[int] | None = None,
    ) -> Opened:
        """A frame of an inner scope: its rows are charged without waiting, and released when settled.

        Args:
            scope: the new rows'.
            parents: the row each stems from.
            child_settled: told of settled rows.
            sizes: bytes of each row's value; None: they take none of their own.
        """
        size = len(parents)
        opened = Opened(scope.id, self._next(scope.id), size, parents=parents)
        budget = self.worker.budget
        budget.charge(size)
        self._rows_charged += size
        if sizes is not None and self.charges_bytes:
            opened.charged = sizes
            self._grow(sum(sizes))

        def settled(ledger: Ledger, rows: Sequence[int]) -> None:
            del ledger
            if not self._taken_down:
                self.discharge(opened, rows)
                self._rows_charged -= len(rows)
                budget.release(len(rows))
            child_settled(opened, rows)

        opened.ledger = Ledger(size, scope.leaves, settled, opened)
        return opened

    def row_streams(self) -> RowStreams:
        """The streams of this chain, made on first use."""
        if self.streams is None:
            self.streams = RowStreams(self)
        return self.streams

    def stream_of(
        self,
        node_id: str,
        opened: Opened,
        row: int,
        items: AsyncIterable[T],
        *,
        capacity: int,
        on_close: OnClose | None,
    ) -> LiveStream[T]:
        """A stream a node makes in its call for a row, be it on the loop or in a thread of its own."""
        production = Production(
            items,
            node_id=node_id,
            capacity=capacity,
            on_close=on_close,
            report=lambda fault: self.worker.report(node_id, fault),
            loop=self.loop,
        )

        def bind() -> None:
            self.row_streams().bind(production, opened, row)

        if threading.get_ident() == self._thread:
            bind()
        else:
            self.loop.call_soon_threadsafe(bind)  # before the call's own result, which comes the same way
        return LiveStream(production)

    # --- bytes in flight ------------------------------------------------------------------------------

    @property
    def charges_bytes(self) -> bool:
        """Whether what nodes make of rows is charged: in streams; requests are bounded by their number."""
        return self.task is not None

    def charge(self, opened: Opened, row: int, nbytes: int, *, instead: bool) -> None:
        """A node has made something of a row.

        Args:
            opened: the row's frame.
            row: in that frame.
            nbytes: its size.
            instead: it takes the place of what was charged for the row before, else it comes on top.
        """
        if not self.charges_bytes:
            return
        charged = opened.charged
        if charged is None:
            if not nbytes:
                return
            charged = opened.charged = [0] * opened.size
        more = nbytes - charged[row] if instead else nbytes
        charged[row] += more
        self._grow(more)

    def discharge(self, opened: Opened, rows: Sequence[int]) -> None:
        """Rows are settled: give back what was charged for what nodes made of them."""
        charged = opened.charged
        if charged is None:
            return
        nbytes = 0
        for row in rows:
            nbytes += charged[row]
            charged[row] = 0
        self._grow(-nbytes)

    def _grow(self, nbytes: int) -> None:
        if nbytes:
            self._bytes_charged += nbytes
            self.worker.budget.grow(nbytes)

    def give_back(self) -> None:
        """The chain is taken down: what its unsettled rows are charged for is free again."""
        rows, self._rows_charged = self._rows_charged, 0
        nbytes, self._bytes_charged = self._bytes_charged, 0
        self._taken_down = True
        self.worker.budget.grow(-nbytes)
        self.worker.budget.release(rows)

    def stalled(self) -> None:
        """A stage holds work back, for too many bytes are in flight: rows that gather wait no longer."""
        if self.gathering and not self._stalled and not self.closed:
            self._stalled = True
            self.loop.call_later(_STALLED_CHECK_S, self._let_go)

    def _let_go(self) -> None:
        self._stalled = False
        if self.closed or not self.worker.budget.overdrawn:
            return
        for let_go in self.gathering:
            let_go()
        self.stalled()

    # --- frames ---------------------------------------------------------------------------------------

    def _next(self, scope: str) -> int:
        seq = self._seqs.get(scope, 0)
        self._seqs[scope] = seq + 1
        return seq

    def _root_settled(self, ledger: Ledger, rows: Sequence[int]) -> None:
        if self.closed:
            return  # cut short: what leaves now was not worked on to its end, and must come again
        opened: Any = ledger.owner
        self.listener.settled(opened, rows)

    # --- failures -------------------------------------------------------------------------------------

    def failed(  # noqa: PLR0913 - one keyword per thing a row's failure may tell
        self,
        node_id: str,
        opened: Opened,
        row: int,
        error: BaseException,
        attempts: int = 1,
        *,
        started: float = 0.0,
        on_error_port: bool = True,
        value: object = UNSET,
        undecoded: bool = False,
        replaced: bool = False,
        recalled: bool = False,
    ) -> Failure:
        """Count and report a failed row, then do what its policy says: a dead letter, or stop the workflow.

        The row must not be settled yet, and must be covered by the caller afterwards.

        Args:
            node_id: the node it failed at.
            opened: the row's frame.
            row: in that frame.
            error: what the node raised, or the engine in its place.
            attempts: how many were made, this one included.
            started: when the node began on it, Unix seconds; 0.0 when nobody asked, or it never began.
            on_error_port: False when the row has left the node, so that no error connection can have it.
            value: what the node was given, by port where it has several; for the row's dead letter.
            undecoded: the record is raw input its source could not decode.
            replaced: the row goes on with the fallback of the node, which the caller gives it.
            recalled: it failed in an earlier pass of its execution, and was counted and told of then.

        Raises:
            KeyboardInterrupt: `error` itself, which is no row's.
        """
        failure = Failure(node_id, contained(error, node_id), attempts)
        then = self._then(failure, opened, row, on_error_port=on_error_port, replaced=replaced)
        if then != "retry_workflow":  # what the last attempt comes to counts
            self._note_failure(failure, opened, row, started, then)
            self.listener.failed(failure)
        if not recalled:
            self._count_failure(node_id, then)
            self.worker.telemetry.node_failed(self, node_id, opened, row, failure, started, then)
        letters = self.worker.letters_of(node_id, asked=True) if then == "dead_letter" else None
        if letters is not None:
            if self.journal is None or not self.journal.was_lettered(node_id, opened, row):
                letters.put(self, opened, row, failure, value, undecoded=undecoded)
        elif then == "stop_workflow" and not self._is_left(failure):
            self.listener.stop(failure, opened, row)
        return failure

    @staticmethod
    def _is_left(failure: Failure) -> bool:
        """The run is being drained for it, and its record is left for the next run."""
        return getattr(failure.error, "_then", None) == "leave"

    def _then(
        self, failure: Failure, opened: Opened, row: int, *, on_error_port: bool, replaced: bool
    ) -> FailureHandling:
        """What is done with a row that failed."""
        node_id = failure.node
        then: FailureHandling = self.worker.on_error[node_id]
        wish: str | None = getattr(failure.error, "_then", None)  # of a budget: models.budgets
        if replaced:
            return "fallback"
        if wish == "dead_letter" and self.worker.letters_of(node_id, asked=True) is not None:
            return "dead_letter"
        if on_error_port and node_id in self.handled:
            return "error_port"
        if self.plan.graph.nodes[node_id].attempts > 1 and self.listener.again(failure, opened, row):
            return "retry_workflow"
        if wish == "leave" and then == "stop_workflow" and not self.listener.leave(opened, row):
            return "continue"
        return then

    def quarantined(
        self, node_id: str, opened: Opened, error: Exception, deaths: int, letters: Letters
    ) -> Failure:
        """The record of a frame of one row is put aside before it is worked on: it becomes a dead letter."""
        failure = Failure(node_id, error, deaths)
        self._note_failure(failure, opened, 0, 0.0, "dead_letter")
        self._count_failure(node_id, "dead_letter")
        self.worker.telemetry.node_failed(self, node_id, opened, 0, failure, 0.0, "dead_letter")
        self.listener.failed(failure)
        letters.put(self, opened, 0, failure, UNSET, undecoded=False)
        return failure

    def _count_failure(self, node_id: str, then: FailureHandling) -> None:
        counts = self.counts[node_id]
        if then == "retry_workflow":
            counts.retried += 1
            return
        counts.failed += 1
        counts.handled += then in ("fallback", "error_port")
        counts.replaced += then == "fallback"

    def _note_failure(
        self, failure: Failure, opened: Opened, row: int, started: float, then: FailureHandling
    ) -> None:
        """Write it into the execution's record, and keep it with its root records where someone asks."""
        if self.recording:
            ended = self.worker.telemetry.clock()
            execution = self.execution_of(opened, row)
            handled = then in ("fallback", "error_port")
            execution.failed(failure.node, failure, started, ended, handled=handled)
            execution.node(failure.node).replaced += then == "fallback"
        if self.keeps_failures:
            _keep_failure(opened, row, failure)

    def completed(
        self,
        node_id: str,
        opened: Opened,
        row: int,
        value: Any,
        started: float,
        attempts: int = 1,
        *,
        recalled: bool = False,
    ) -> None:
        """Report one finished row of a node, ABSENT when it let nothing through; counting is the caller's.

        What is `recalled` from an earlier pass of its execution was told then.
        """
        telemetry = self.worker.telemetry
        if not self.recording and not telemetry.bus.active:
            return
        ended = telemetry.clock()
        dropped = value is ABSENT
        if not recalled:
            telemetry.node_completed(self, node_id, opened, row, started, ended, dropped=dropped, value=value)
        if self.recording:
            execution = self.execution_of(opened, row)
            if dropped:
                execution.dropped(node_id, started, ended)
            else:
                execution.completed(node_id, opened.order(row), value, started, ended, attempts)
                if self.streams is not None:
                    self.streams.ends.completed(node_id, opened, row, value)

    def replace(
        self,
        node_id: str,
        fallback: ResolvedFallback,
        opened: Opened,
        row: int,
        error: BaseException,
        attempts: int = 1,
        *,
        started: float = 0.0,
        recalled: bool = False,
    ) -> Any:
        """Count and report a failed row that goes on, and give what takes the place of its output."""
        self.failed(node_id, opened, row, error, attempts, started=started, replaced=True, recalled=recalled)
        value = fallback.make()
        if self.recording:
            self.execution_of(opened, row).node(node_id).values.append((opened.order(row), value))
        return value

    def sink_wrote(
        self, node_id: str, opened: Opened, row: int, now: float, *, recalled: bool = False
    ) -> None:
        """A sink has made a row durable; now, or in an earlier pass of the execution."""
        if not recalled:
            self.worker.telemetry.node_completed(self, node_id, opened, row, now, now, dropped=False)
        if self.recording:
            self.execution_of(opened, row).dropped(node_id, now, now)

    def _crash(self, error: BaseException) -> None:
        self.closed = True
        self.listener.crashed(error)

    def crash(self, error: BaseException) -> None:
        """An engine fault found by an operator."""
        self._crash(error)

    # --- executions -----------------------------------------------------------------------------------

    def execution_of(self, opened: Opened, row: int) -> Execution:
        """The execution of the root record a row descends from."""
        root, root_row = opened.root(row)
        return self.listener.execution(root, root_row)

    def execution_id(self, opened: Opened, row: int) -> str | None:
        """For events: the execution's id, without making an execution."""
        root, root_row = opened.root(row)
        executions: Mapping[int, Execution] | None = root.executions
        if executions is not None and root_row in executions:
            return executions[root_row].id
        return self.name_of(root, root_row)

    def name_of(self, root: Opened, row: int) -> str:
        """The id of the execution of a run's root record, whether one was made or not."""
        return f"{self.run}/{self.task}#{root.seq}.{row}"

    def attributes(self, opened: Opened, row: int) -> Mapping[str, Any]:
        """What the caller of the run said of it, for middleware."""
        return self.execution_of(opened, row).attributes if self.recording else self.run_attributes

    def stopped(self, opened: Opened, row: int) -> Failure | None:
        """Why a row must not be worked on any more; None: it must."""
        root, root_row = opened.root(row)
        executions: Mapping[int, Execution] | None = root.executions
        if executions is None:
            return None
        execution = executions.get(root_row)
        return None if execution is None else execution.stopped


def precedence_of(kernel: Kernel, places: int) -> Precedence | None:
    """The precedence of the oldest record's rows in one stage; None for requests, which wait for no others.

    Args:
        kernel: of the stage's chain.
        places: rows the stage works on at once.
    """
    return Precedence(kernel.worker.budget, kernel, places) if kernel.charges_bytes else None


def _keep_failure(opened: Opened, row: int, failure: Failure) -> None:
    """With the root records of a row, until they are settled."""
    for root, root_row in opened.roots(row):
        if root.failures is None:
            root.failures = {}
        root.failures.setdefault(root_row, failure)


def _unknown() -> None:
    """Nobody knows which record is the oldest."""
