"""A node of a continuous run that may hold rows, as far as storing and returning them needs to know it.

Owns: `Holder`. Does not own: finding such nodes (returning). Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """A node that may hold rows."""

    node_id: str
    delays: bool
    """It holds them for as long as its configuration says; else until there is an answer."""
    ports: tuple[str, ...]
    """All of its input ports."""
    annotations: Mapping[str, Any]
    """Of what comes in, by connected port."""

    def by_port(self, value: Any) -> dict[str, Any]:
        """What it was given at connected ports, of what its stage is given."""
        values = (value,) if len(self.ports) == 1 else value
        return {port: each for port, each in zip(self.ports, values, strict=True) if port in self.annotations}
