"""Rows of a chain of a continuous run that wait: asked for, stored, and going on with answers.

Owns: `RowHolds`, asked by the operators and contexts of one chain; what is kept of a row.
Does not own: the rows of the run as a whole, and when they come back (holds), requests (rows).

Always holds: a row leaves its stage only when it is stored; what cannot be stored fails as a row does. A
chain without nodes that hold rows has no RowHolds, and pays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from flowcore.dead_letters import Origin
from flowcore.errors import CancelledRowError, ContractError
from flowcore.events import OpenWait
from flowcore.store_errors import StoreInputError
from flowcore.waits import Wait, WaitExpiredError, WaitRequest, check_request
from flowruntime.compile.sentinels import ABSENT
from flowruntime.durable.held import HELD, KNOWN, HeldRow, Place, row_id, way_on
from flowruntime.durable.recorded import plain_copy, recall_as, record_as, wait_id
from flowruntime.durable.suspension import Suspension

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.durable.holder import Holder
    from flowruntime.flowcontrol.jobs import Job
    from flowruntime.operators.kernel import Kernel

_SAME: Final = "port"
"""In the recorded form of a record: it is what this port was given."""


class Returned(NamedTuple):
    """A row that is back."""

    id: str
    row: HeldRow
    answers: Sequence[Mapping[str, Any]]
    """What came of everything it has waited for, in order."""


class Keeper(Protocol):
    """Who stores rows."""

    @property
    def workflow(self) -> str:
        """What rows are known by together with their place."""
        ...

    @property
    def clock(self) -> Callable[[], float]: ...

    def keep(self, id: str, row: HeldRow, waits: Sequence[Wait]) -> asyncio.Future[bool]:
        """Store it; done when that is durable: whether it is new."""
        ...


class RowHolds:
    """The rows of one chain that wait.

    Args:
        kernel: of the chain.
        keeper: stores them.
        holders: nodes that may hold rows.
        source: the chain's, None of a chain of rows that are back.
        partition: likewise.
        keeps_positions: a record that is read again has the position it had.
    """

    def __init__(
        self,
        kernel: Kernel,
        keeper: Keeper,
        holders: Mapping[str, Holder],
        source: ResolvedNode,
        partition: str,
        *,
        keeps_positions: bool,
    ) -> None:
        self._kernel = kernel
        self._keeper = keeper
        self._holders = holders
        self._source = source
        self._partition = partition
        self._keeps_positions = keeps_positions
        self.returned: dict[Opened, Sequence[Returned]] = {}
        """Rows that are back and not settled, by their frames."""
        self._asked: set[tuple[str, Opened, int]] = set()
        """Calls that were told to end."""

    # --- asked by contexts ----------------------------------------------------------------------------

    async def wait(self, node_id: str, opened: Opened, row: int, number: int, request: WaitRequest) -> Any:
        """The answer to the n-th wait of a call; see `NodeContext.wait`.

        Raises:
            Suspension: there is none yet.
            WaitExpiredError: there will be none.
        """
        check_request(request, node_id)
        outcome = self._outcome(node_id, opened, row, number)
        if outcome is not None:
            return _answer_of(outcome, node_id)
        raise self._suspended(
            node_id,
            opened,
            row,
            number,
            kind=request.kind,
            title=request.title,
            schema=request.schema,
            timeout=request.timeout,
            on_timeout=request.on_timeout,
            default=request.default,
        )

    def delays(self, node_id: str) -> bool:
        """Whether `ctx.sleep` of this node stores the row."""
        holder = self._holders.get(node_id)
        return holder is not None and holder.delays

    async def delay(self, node_id: str, opened: Opened, row: int, number: int, duration: timedelta) -> None:
        """Return when the row has waited.

        Raises:
            Suspension: it has not.
        """
        if self._outcome(node_id, opened, row, number) is None:
            raise self._suspended(
                node_id,
                opened,
                row,
                number,
                kind="delay",
                title="",
                schema=None,
                timeout=duration,
                on_timeout="answer",
                default=None,
            )

    def _outcome(self, node_id: str, opened: Opened, row: int, number: int) -> Mapping[str, Any] | None:
        found = self.back(opened, row)
        if found is None or found.row.node != node_id or number >= len(found.answers):
            return None
        return found.answers[number]

    def back(self, opened: Opened, row: int) -> Returned | None:
        """The row that is back from which this one stems."""
        root, root_row = opened.root(row)
        found = self.returned.get(root)
        return None if found is None else found[root_row]

    def _suspended(self, node_id: str, opened: Opened, row: int, number: int, **asked: Any) -> Suspension:
        self._asked.add((node_id, opened, row))
        now, path, id = self._keeper.clock(), opened.path(row), self._id(node_id, opened, row)
        timeout: timedelta | None = asked.pop("timeout")
        wait = Wait(
            id=wait_id(id, node_id, path, number),
            execution_id=id,
            node=node_id,
            path=path,
            created_at=now,
            expires_at=None if timeout is None else now + timeout.total_seconds(),
            **asked,
        )
        return Suspension(wait)

    # --- asked by operators ---------------------------------------------------------------------------

    def take(self, node_id: str, job: Job, then: Callable[[], None]) -> None:
        """A call is over: store a row that waits, and go on when that is durable."""
        if node_id not in self._holders:
            then()
            return
        key = (node_id, job.opened, job.row)
        asked = key in self._asked
        self._asked.discard(key)
        if not isinstance(job.error, Suspension):
            if asked and job.error is None:
                job.error = ContractError(
                    f"node {node_id!r} caught what ctx.wait ends its call with, and went on without an "
                    "answer; catch Exception there, not BaseException",
                    node=node_id,
                )
            then()
            return
        waits = job.error.waits
        try:
            held = self._held(node_id, job)
        except Exception as refused:  # noqa: BLE001 - of a user's values; it is the row's failure
            job.error = refused
            then()
            return

        def stored(done: asyncio.Future[bool]) -> None:
            if done.cancelled():
                return  # the run is over, and the record comes again
            job.error = done.exception()
            if job.error is None:
                job.result, job.extra = ABSENT, HELD if done.result() else KNOWN
            then()

        self._keeper.keep(waits[0].execution_id, held, waits).add_done_callback(stored)

    def _id(self, node_id: str, opened: Opened, row: int) -> str:
        back = self.back(opened, row)
        earlier = back.answers if back is not None and back.row.node == node_id else ()
        return row_id(self._keeper.workflow, node_id, self._place(opened, row, node_id), len(earlier))

    def _place(self, opened: Opened, row: int, node_id: str) -> Place:
        root, root_row = opened.root(row)
        path = opened.path(row)
        back = self.back(opened, row)
        if back is not None:
            return back.row.place if back.row.node == node_id else way_on(back.row, path)
        source, position, record = self._source.id, None, ""
        if not self._keeps_positions or (root.positions is None and root.cursor is None):
            record = f"{self._kernel.run} {root.first_index + root_row}"
        elif root.positions is not None:
            position = root.positions[root_row]
        else:
            position, record = root.cursor, str(root.size - root_row)
        return Place(source=source, partition=self._partition, position=position, record=record, path=path)

    def _held(self, node_id: str, job: Job) -> HeldRow:
        """What is kept of the row.

        Raises:
            StoreInputError: something of it has no form that can be kept.
        """
        back = self.back(job.opened, job.row)
        holder = self._holders[node_id]
        given = holder.by_port(job.value)
        what = f"what node {node_id!r} was given"
        recorded = {
            port: record_as(holder.annotations[port], value, f"{what} at {port!r}")
            for port, value in given.items()
        }
        if back is not None:
            earlier = list(back.answers) if back.row.node == node_id else []
            fields = {"node": node_id, "place": self._place(job.opened, job.row, node_id), "given": recorded}
            record = back.row.record
            if _SAME in record and back.row.node != node_id:
                record = back.row.given[record[_SAME]]
            return msgspec.structs.replace(back.row, **fields, record=record, answers=earlier)
        root, row = job.opened.root(job.row)
        record = None if root.records is None else root.records[row]
        same = next((port for port, value in given.items() if value is record), None)
        row_type = self._source.definition.outputs[0].annotation
        time: Any = None if root.times is None else root.times[row]
        headers = {} if root.headers is None else dict(root.headers[row])
        what = f"of the record of source {self._source.id!r}, which node {node_id!r} holds"
        return HeldRow(
            node=node_id,
            place=self._place(job.opened, job.row, node_id),
            origin=self._origin(root, row),
            given=recorded,
            record={_SAME: same} if same is not None else record_as(row_type, record, f"the value {what}"),
            key=None if root.keys is None else plain_copy(root.keys[row], f"the key {what}"),
            headers=plain_copy(headers, f"the headers {what}"),
            time=time.isoformat() if isinstance(time, datetime) else None,
        )

    def _origin(self, root: Opened, row: int) -> dict[str, Any]:
        origin = Origin(
            source=self._source.id,
            partition=self._partition,
            position=None if root.positions is None else root.positions[row],
            index=root.first_index + row,
        )
        return {name: getattr(origin, name) for name in ("source", "partition", "position", "index")}


def given_of(row: HeldRow, holder: Holder) -> dict[str, Any]:
    """What the node was given, by port.

    Raises:
        StoreInputError: it was stored by a version of the node that was given something else.
    """
    try:
        return {port: recall_as(holder.annotations[port], row.given[port]) for port in holder.annotations}
    except (KeyError, msgspec.ValidationError) as fault:
        raise StoreInputError(
            f"a row that waited at node {row.node!r} was stored with inputs {', '.join(sorted(row.given))}; "
            f"now the node takes {', '.join(sorted(holder.annotations))}: {fault}",
            what="inputs",
            reason=str(fault),
        ) from fault


def record_of(row: HeldRow, given: Mapping[str, Any], row_type: Any) -> Any:
    """The source's record."""
    return given[row.record[_SAME]] if _SAME in row.record else recall_as(row_type, row.record)


def outcome_of(wait: Wait) -> dict[str, Any]:
    """What came of a wait, as it is kept for the next call."""
    fields = ("id", "state", "on_timeout", "answer", "title", "kind")
    return {name: getattr(wait, name) for name in fields}


def in_order(row: HeldRow, id: str, waits: Sequence[Wait]) -> list[Wait]:
    """The waits of a row in the order in which its call asks for them."""
    first = len(row.answers)
    numbers = {
        wait_id(id, row.node, wait.path, first + number): number
        for wait in waits
        for number in range(len(waits))
    }
    return sorted(waits, key=lambda wait: numbers.get(wait.id, len(waits)))


def open_waits(waits: Sequence[Wait]) -> tuple[OpenWait, ...]:
    """What events and results tell of them."""
    return tuple(
        OpenWait(
            id=wait.id,
            node=wait.node,
            wait_kind=wait.kind,
            title=wait.title,
            schema=wait.schema,
            expires_at=wait.expires_at,
            path=wait.path,
        )
        for wait in waits
    )


def _answer_of(outcome: Mapping[str, Any], node_id: str) -> Any:
    state = outcome["state"]
    if state == "answered" or (state == "expired" and outcome["on_timeout"] == "answer"):
        return outcome["answer"]
    what = outcome["title"] or outcome["kind"]
    if state == "expired":
        raise WaitExpiredError(
            f"node {node_id!r} waited for {what!r} and nobody answered in time",
            wait=outcome["id"],
            node=node_id,
        )
    raise CancelledRowError(f"wait {outcome['id']} of node {node_id!r}: given up", node=node_id)
