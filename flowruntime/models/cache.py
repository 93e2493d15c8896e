"""Answers given before, in memory: the least recently asked for go first.

Owns: `MemoryCache`. Does not own: which request may be answered from it (gateway), the file (cache_file).

Pure: time is passed in. Holds at most `entries` answers and `max_bytes` of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from flowruntime.models.kept import Answer, packed, unpacked

MAX_BYTES: Final = 64 * 1024 * 1024


class MemoryCache:
    """By content hash.

    Args:
        max_bytes: of all answers together; one that is larger than a tenth of it is not kept.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes: Final = max_bytes
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self.nbytes = 0
        self.entries = 0
        """At most; the largest number some policy has declared."""
        self.hits = self.misses = self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str, now: float, ttl_s: float | None) -> Answer | None:
        """The answer kept under that hash, unless it is older than that."""
        found = self._kept.get(name)
        if found is None or (ttl_s is not None and now - found[0] > ttl_s):
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(name)
        return unpacked(found[1])

    def put(self, name: str, answer: Answer, now: float, entries: int) -> None:
        """Keep an answer, and let go of what is too much."""
        self.entries = max(self.entries, entries)
        body = packed(answer)
        self._drop(name)
        if len(body) * 10 > self._max_bytes:
            return
        self._kept[name] = (now, body)
        self.nbytes += len(body)
        while len(self._kept) > self.entries or self.nbytes > self._max_bytes:
            self._drop(next(iter(self._kept)))
            self.evicted += 1

    def _drop(self, name: str) -> None:
        found = self._kept.pop(name, None)
        if found is not None:
            self.nbytes -= len(found[1])
