"""What reading the text of a workflow file gives, whichever format it is in."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowcore.document import Fault
from flowcore.findings import Mark, Path


@dataclass(frozen=True, slots=True)
class Parsed:
    """Plain data, the line of every path, and the places that are not what somebody meant to write."""

    data: object
    marks: dict[Path, Mark]
    faults: list[Fault] = field(default_factory=list[Fault])
