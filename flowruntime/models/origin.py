"""On whose behalf calls are made: a row, a batch, a node before its first row, or a client.

Owns: `Origin`, `Naming`, how a row's calls are named in the journal.
Does not own: making calls (gateway), the journal itself (journal).

Always holds: the name of a call is the same whenever its record comes again, in any process: it stands on the
position of the record in its source, the place of the row below it, the node, the node's configuration and
the number of the call. Where the place of a row is not known (children, outside of executions that are kept),
its
call is named by what it asks instead: equal requests of one record then share an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowruntime.models.budgets import Spender
from flowruntime.models.journal import CallName

if TYPE_CHECKING:
    from flowcore.frame import Opened


@dataclass(slots=True)
class Origin:
    """Of the calls of one row."""

    node: str = ""
    workflow: str = ""
    execution_id: Callable[[], str | None] = lambda: None
    task: str | None = None
    spender: Spender = field(default_factory=Spender)
    deadline: float | None = None
    """On the loop's clock."""
    max_hold_s: float = 60.0
    """How long a call may wait for a budget's next window in memory."""
    put_off: Callable[[float], Awaitable[bool]] | None = None
    """Store the row, for so many seconds: True when it is back. False: nothing stores it."""
    naming: Callable[[], Naming | None] = lambda: None
    """Asked only for calls that are journaled; None: they cannot be."""


@dataclass(slots=True)
class Naming:
    """Names of the calls of one row."""

    record: str
    prefix: str
    """Lineage, node, configuration."""
    placed: bool
    """The lineage says which row it is."""
    noted: Callable[[], None]
    """Told once something was journaled, so that it is let go of with its record."""
    anywhere: bool = False
    """Whatever record has the call, it is this one: batches are made up differently each time."""

    def of(self, number: str, request: str) -> CallName:
        """The name of a call.

        Args:
            number: of the call among those of its row.
            request: content hash of what it asks.
        """
        return CallName(self.record, f"{self.prefix}|{number if self.placed else request}")


_SHORT: Final = 16


def record_name(workflow: str, source: str, partition: str, root: Opened, row: int) -> str:
    """The name of a root record of a stream: where it stands, or what it is where its source does not say."""
    position = None if root.positions is None else root.positions[row]
    if position is None:
        record = None if root.records is None else root.records[row]
        position = hashlib.sha256(_encoded(record)).hexdigest()
    else:
        position = _encoded(position).decode()
    return f"{workflow}|{source}|{partition}|{position}"


def prefix_of(node: str, config: Mapping[str, Any], lineage: str | None) -> str:
    """What the names of a row's calls begin with."""
    tag = hashlib.sha256(_encoded(config)).hexdigest()[:_SHORT]
    return f"{'?' if lineage is None else lineage}|{node}|{tag}"


def lineage_of(opened: Opened, row: int) -> str | None:
    """The place of a row below its record; None where it is not known."""
    above = opened
    at = row
    while above.parents is not None:
        if above.places is None:
            return None
        above, at = above.parents[at]
    return opened.path(row)


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=repr, order="deterministic")
