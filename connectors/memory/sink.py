"""memory.sink: keeps the rows it is given; for tests, examples and code.

Owns: `MemorySink`.
Does not own: anything outside the process.

Always holds: `values` are the rows in the order written; a row beyond `max_rows` fails, it is never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from flowcore.connector import Rows, Sink
from flowcore.context import SinkContext
from flowcore.errors import LimitExceededError, SinkError

_NONE_FAILED: Final[Mapping[int, Exception]] = {}


class MemorySinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to keep."""

    max_rows: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """None: everything."""


class MemorySink(Sink[MemorySinkConfig, object], type="memory.sink"):
    """Rows kept in `values`.

    Settles         when `write` returns; nothing outlives the process.
    Fails by row    LimitExceededError for each row beyond `max_rows`.
    Holds           every row written, `max_rows` when set.
    """

    def __init__(self, config: MemorySinkConfig | None = None) -> None:
        super().__init__(config or MemorySinkConfig())
        self.values: list[Any] = []
        self._is_open = False

    async def open(self, ctx: SinkContext) -> None:
        del ctx
        self._is_open = True

    async def write(self, batch: Rows[object]) -> Mapping[int, Exception]:
        if not self._is_open:
            raise SinkError(f"{self!r} is not open and was written")
        most = self.config.max_rows
        if most is None or len(self.values) + len(batch.values) <= most:
            self.values.extend(batch.values)
            return _NONE_FAILED
        room = most - len(self.values)
        self.values.extend(batch.values[:room])
        error = LimitExceededError(
            f"memory.sink keeps {most} rows and is full; raise max_rows", max_rows=most
        )
        return dict.fromkeys(range(room, len(batch.values)), error)

    async def close(self) -> None:
        """Take no more rows; those written stay in `values`."""
        self._is_open = False

    def __repr__(self) -> str:
        return f"<MemorySink {len(self.values)} rows>"
