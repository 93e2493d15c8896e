"""After processes have died in a row: records one at a time, each under a note; the fatal ones are put aside.

Owns: `careful_of`, whether a run needs it; `Careful`, of one run: the lock that keeps records of all its
partitions apart, the letters of records that are quarantined.
Does not own: the notes (flowruntime.state.quarantine), reading (task).

Always holds: a record is quarantined only after `quarantine_after` processes died while it was the one record
worked on under a note; its letter is kept before it is settled. Nothing of this exists in a run that follows
a clean end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowcore.errors import ProcessKilledError
from flowcore.settings import DeadLetterPlace
from flowruntime.compile.dead_letter import place_for
from flowruntime.state.quarantine import Deaths

if TYPE_CHECKING:
    from flowcore.registry import NodeRegistry
    from flowruntime.execute.worker import Worker
    from flowruntime.flowcontrol.letters import LetterWriter
    from flowruntime.state.positions import PositionStore

QUARANTINE_FILE: Final = "quarantine.jsonl"


class Careful:
    """The careful part of one run.

    Args:
        deaths: marker and notes of its workflow.
        worker: of the run.
        registry: where the sink of quarantined records is found, when the workflow names no place.
        folder: the state folder, for that sink's file.
    """

    def __init__(self, deaths: Deaths, worker: Worker, registry: NodeRegistry, folder: str) -> None:
        self.deaths = deaths
        self.lock = asyncio.Lock()
        self._worker = worker
        self._registry = registry
        self._folder = folder
        self._letters: LetterWriter | None = None

    @property
    def limit(self) -> int:
        """Deaths on one record after which it is not worked on again."""
        return self._worker.graph.settings.quarantine_after or 0

    async def letters(self) -> LetterWriter:
        """Where quarantined records go: the workflow's dead letters, else a file of their own."""
        if self._worker.letters is not None:
            return self._worker.letters
        if self._letters is None:
            place = self._worker.graph.dead_letter
            if place is None:
                path = str(Path(self._folder) / QUARANTINE_FILE)
                place = place_for(DeadLetterPlace(type="files.sink", config={"path": path}), self._registry)
                self._worker.services.log(
                    f"workflow {self._worker.graph.name!r} names no place for dead letters: the record that "
                    f"kills its process is kept in {path}; say settings.dead_letter to have it elsewhere",
                    "warning",
                    {"workflow": self._worker.workflow_id},
                )
            self._letters = await self._worker.letter_writer(place)
        return self._letters

    def error(self, node: str, deaths: int) -> ProcessKilledError:
        """Why a record is put aside."""
        return ProcessKilledError(
            f"the process died {deaths} times while it worked on this record alone; it is not worked on "
            "again (quarantine_after)",
            node=node,
            deaths=deaths,
        )

    async def end(self) -> None:
        """The run has ended, in whatever way the process survived; faults are logged, not raised."""
        letters, self._letters = self._letters, None
        for close in (None if letters is None else letters.aclose, self.deaths.end):
            try:
                if close is not None:
                    await close()
            except Exception as error:  # noqa: BLE001 - the run has its result by now
                facts = {"workflow": self._worker.workflow_id}
                self._worker.services.log(f"the end of the run could not be noted: {error}", "error", facts)


def careful_of(
    worker: Worker,
    positions: PositionStore,
    sources: Mapping[str, Any],
    registry: NodeRegistry,
    folder: str,
) -> Careful | None:
    """What notices that a process dies in a run; None where nothing of it would come again one by one.

    Args:
        worker: of the run.
        positions: where those of its sources are kept.
        sources: instances in the place of declared sources, by node.
        registry: as for `Careful`.
        folder: as for `Careful`.
    """
    nodes, settings = worker.graph.nodes.values(), worker.graph.settings
    if settings.quarantine_after is None or settings.delivery == "at_most_once":
        return None
    read = [sources.get(each.id, each.definition.implementation) for each in nodes if each.role == "source"]
    resumes = any(getattr(each, "positions", "none") == "runtime" for each in read)
    if not resumes or any(each.role == "operator" for each in nodes):
        return None
    return Careful(Deaths(positions, worker.graph.name), worker, registry, folder)
