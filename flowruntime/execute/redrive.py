"""Redriving: the records of dead letters run again, sinks writing, and their letters are marked by what came.

Owns: `Redrive`, `Redriven`, which letters are one record, what becomes of a letter.
Does not own: running a request (requests), the rules of letters (flowcore.dead_letters), stores (connectors).

Always holds: a letter is marked redriven only when its record went through completely; a record that fails
again stands in a new letter, with the old one in its lineage, before the old one is resolved. A crash in
between runs the record again at most: never lost, at least once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import msgspec

from flowcore.dead_letters import (
    BrokenEntry,
    DeadLetter,
    DeadLetterStore,
    Filed,
    LetterFilter,
    error_info,
    error_line,
    lineage_of,
    redrive_fault,
    root_of,
)
from flowcore.errors import ValidationFailedError
from flowcore.findings import did_you_mean
from flowcore.plain import from_plain
from flowcore.states import Cancelled
from flowcore.values import ValueFormError
from flowruntime.execute.execution import Past
from flowruntime.execute.inputs import SOURCE_PORT, request_inputs
from flowruntime.execute.letters import hash_of

if TYPE_CHECKING:
    from flowcore.workflow import Workflow
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.execute.context import Services
    from flowruntime.execute.result import RunResult
    from flowruntime.execute.warm import WarmChains

Fate: TypeAlias = Literal["redriven", "failed", "refused", "left"]
"""redriven  its record went through completely
failed    it failed again: a new letter stands for it
refused   it was not run, and its letter is as it was
left      it was run and did not come to an end (a deadline, a cancellation); its letter is as it was"""

PAGE: Final = 256
MOST_REMEMBERED: Final = 100_000
"""Records whose fate is kept for other letters of theirs; those lie close together in a store."""


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record."""

    letters: tuple[str, ...]
    """Ids of all that its run answers for: several where several rows of one record had failed."""
    fate: Fate
    why: str = ""
    """For all but redriven."""
    made: tuple[str, ...] = ()
    """Ids of the letters it failed into."""


class RedriveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How letters are gone over."""

    limit: int | None = None
    """Letters looked at, at most."""
    parallel: int = 8
    """Records in work at once; their order is kept only with 1."""
    incomplete: bool = False
    """Run letters whose key or headers were not kept, without those."""
    dry_run: bool = False
    """Run and mark nothing; what would be run is told as `redriven`."""


class Redrive:
    """One going over the letters of a store; iterate it once.

    Args:
        chains: warm ones of the runtime.
        services: of the runtime.
        workflow: the records run through; it may have changed since the letters were written.
        store: opened; letters are read from it and marked there.
        wanted: which letters; where it names no ids, only pending ones are looked at.
        options: bounds and manner.

    Holds: one page of letters, and the fates of at most `MOST_REMEMBERED` records.
    """

    def __init__(
        self,
        chains: WarmChains,
        services: Services,
        workflow: Workflow,
        store: DeadLetterStore,
        wanted: LetterFilter,
        options: RedriveOptions,
    ) -> None:
        self.broken: list[BrokenEntry] = []
        """What the store has that cannot be read, as far as it was gone over."""
        self.looked_at = 0
        """Letters, whatever became of them."""
        self.cut_short = False
        """It was stopped, and letters are left."""
        self.later = 0
        """Letters left for the next time: written after this going over had begun."""
        self._chains = chains
        self._services = services
        self._workflow = workflow
        self._store = store
        if not wanted.ids and not wanted.states:
            wanted = msgspec.structs.replace(wanted, states=frozenset({"pending"}))
        self._wanted = wanted
        self._options = options
        self._stopping = False
        self._made: set[str] = set()
        self._fates: OrderedDict[bytes, Redriven] = OrderedDict()

    def stop(self) -> None:
        """Begin with no more records; those in work are finished and marked."""
        self._stopping = True

    async def __aiter__(self) -> AsyncGenerator[Redriven]:
        """What became of each record, as they finish.

        Raises:
            SinkError: the store cannot be read or marked; what was marked until then stays marked.
            NodeFailedError, ConnectorError: the workflow cannot be started.
        """
        graph = self._chains.resolved(self._workflow, "request")
        started, after = self._services.clock(), None
        while not self._stopping:
            page = await self._store.list(self._wanted, limit=self._room(), after=after)
            self.broken += page.broken
            letters = [each for each in page.letters if self._is_due(each, started)]
            self.looked_at += len(letters)
            self.later += len(page.letters) - len(letters)
            async for done in self._page(graph, letters):
                yield done
            after = page.next
            if after is None or self._room() <= 0:
                return
        self.cut_short = True

    def _is_due(self, filed: Filed, started: float) -> bool:
        """Not made by this very going over, or by a run meanwhile, unless it was asked for by name."""
        return bool(self._wanted.ids) or (filed.letter.at <= started and filed.id not in self._made)

    def _room(self) -> int:
        limit = self._options.limit
        return PAGE if limit is None else min(PAGE, limit - self.looked_at)

    async def _page(self, graph: ResolvedGraph, letters: Sequence[Filed]) -> AsyncGenerator[Redriven]:
        """Run the records of one page, a bounded number at once."""
        groups: dict[bytes, list[Filed]] = {}
        for filed in letters:
            groups.setdefault(hashlib.blake2b(root_of(filed), digest_size=16).digest(), []).append(filed)
        running: set[asyncio.Task[Redriven]] = set()
        try:
            for root, group in groups.items():
                if self._stopping:
                    self.cut_short = True
                    break
                running.add(asyncio.create_task(self._one(graph, root, group), name="flow redrive"))
                if len(running) >= self._options.parallel:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for fate in _fates(done):
                        yield fate
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for fate in _fates(done):
                    yield fate
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    # --- one record -----------------------------------------------------------------------------------

    async def _one(self, graph: ResolvedGraph, root: bytes, group: list[Filed]) -> Redriven:
        known = self._fates.get(root)
        if known is not None:  # another letter of the record was on an earlier page
            fate = msgspec.structs.replace(known, letters=tuple(filed.id for filed in group))
        else:
            fate = await self._run(graph, group)
            self._fates[root] = fate
            while len(self._fates) > MOST_REMEMBERED:
                self._fates.popitem(last=False)
        if not self._options.dry_run:
            await self._mark(fate)
        return fate

    async def _run(self, graph: ResolvedGraph, group: list[Filed]) -> Redriven:
        """Run one record, for all letters of it."""
        letters, lead = tuple(filed.id for filed in group), group[0]
        fault = redrive_fault(lead, incomplete=self._options.incomplete) or input_fault(graph, lead)
        if fault is None and graph.waits:
            fault = (
                "nodes of the workflow wait for an answer, and an execution that is put down does not keep "
                "what a letter knows of its record; run it as a request"
            )
        if fault is not None:
            return Redriven(letters=letters, fate="refused", why=fault)
        if self._options.dry_run:
            return Redriven(letters=letters, fate="redriven")
        at = self._services.clock()
        result = await self._request(graph, lead, at)
        if result.ok or (result.handled and not result.dead_letters):
            return Redriven(letters=letters, fate="redriven")
        if isinstance(result.state, Cancelled) or not result.errors:
            why = str(result.cause or result.state)
            return Redriven(letters=letters, fate="left", why=why)
        why = "; ".join(f"{node}: {error_line(errors[0])}" for node, errors in result.errors.items())
        made = tuple(letter.id for letter in result.letters) if result.dead_letters else ()
        if not made:  # the workflow would forget it
            letter = self._again(graph, lead, result, at)
            await self._store.write([letter])
            made = (letter.id,)
        self._made.update(made)
        return Redriven(letters=letters, fate="failed", why=self._services.redact(why), made=made)

    async def _request(self, graph: ResolvedGraph, filed: Filed, at: float) -> RunResult:
        inputs = cast("dict[str, Any]", inputs_of(filed))  # checked by input_fault
        chain, given, record = await self._chains.request(self._workflow, inputs, {}, write=True)
        try:
            return await chain.execute(
                given, record=record, timeout=graph.settings.timeout, past=past_of(filed, redriven_at=at)
            )
        finally:
            chain.release()

    def _again(self, graph: ResolvedGraph, filed: Filed, result: RunResult, at: float) -> DeadLetter:
        """The letter of a failure whose own policy makes none."""
        taken = {connection.from_node for connection in graph.connections if connection.kind == "error"}
        node = next((node for node in result.errors if node not in taken), next(iter(result.errors)))
        old, workflow, redact = filed.letter, self._workflow, self._services.redact
        return DeadLetter(
            id=self._services.new_id(),
            at=self._services.clock(),
            workflow=workflow.name,
            workflow_version=workflow.version,
            workflow_hash=hash_of(workflow),
            node=node,
            execution_id=result.execution_id,
            error=redact(error_info(result.errors[node][0])),
            attempts=result.outcomes[node].attempts,
            origin=old.origin,
            record=filed.record,
            lossy=_of_origin(old.lossy),
            lineage=lineage_of(filed, redriven_at=at),
        )

    async def _mark(self, fate: Redriven) -> None:
        if fate.fate == "redriven":
            await self._store.mark(fate.letters, "redriven")
        elif fate.fate == "failed":
            await self._store.mark(fate.letters, "resolved", note=f"failed again: {', '.join(fate.made)}")


def _fates(done: Iterable[asyncio.Task[Redriven]]) -> list[Redriven]:
    """What came of records that are over.

    Raises: what the first of those raised that could not be brought to an end.
    """
    faults = [fault for task in done if (fault := task.exception()) is not None]
    if faults:
        raise faults[0]
    return [task.result() for task in done]


# --- from a letter to a request -----------------------------------------------------------------------


def inputs_of(filed: Filed) -> object:
    """The inputs of the request that runs the letter's record: a mapping by node, if the record is right.

    Raises:
        ValueFormError: the record is no plain form.
    """
    record: object = from_plain(filed.record)
    source = filed.letter.origin.source
    return record if source is None else {source: {SOURCE_PORT: record}}


def input_fault(graph: ResolvedGraph, filed: Filed) -> str | None:
    """Why the workflow does not take the letter's record; None: it does."""
    source = filed.letter.origin.source
    sources = graph.sources
    if source is not None and source not in sources:
        remedy = did_you_mean(source, sources) if sources else "it has no source at all"
        return (
            f"its record came from source {source!r}, which workflow {graph.name!r} does not have; {remedy}"
        )
    try:
        inputs = inputs_of(filed)
        names = list(cast("dict[str, object]", inputs)) if isinstance(inputs, dict) else None
        if names is None or not all(name in graph.nodes for name in names):
            takes = ", ".join(graph.open_ports) or "no node"
            return (
                f"its record is no mapping of inputs by node; workflow {graph.name!r} takes them for {takes}"
            )
        request_inputs(graph, cast("dict[str, object]", inputs))
        past_of(filed, redriven_at=0.0)
    except ValidationFailedError as fault:
        return "; ".join(str(problem) for problem in fault.problems)
    except (ValueFormError, ValueError) as fault:
        return f"it cannot be read: {fault}"
    return None


def past_of(filed: Filed, *, redriven_at: float) -> Past:
    """What the record had when it was read the first time; what was not kept of it is left out.

    Raises:
        ValueFormError, ValueError: a part of it is no plain form, or no time.
    """
    letter = filed.letter
    origin, lossy = letter.origin, letter.lossy
    return Past(
        origin=origin,
        lossy=_of_origin(lossy),
        key=None if "key" in lossy else from_plain(origin.key),
        headers={} if "headers" in lossy else from_plain(origin.headers),
        event_time=None if origin.event_time is None else _time(origin.event_time),
        lineage=lineage_of(filed, redriven_at=redriven_at),
    )


def _of_origin(lossy: Mapping[str, str]) -> dict[str, str]:
    return {name: why for name, why in lossy.items() if name in ("key", "headers", "position")}


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
