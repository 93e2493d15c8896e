"""The two marks a fused function puts where a value would be."""

from __future__ import annotations

from typing import Final, final


@final
class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ABSENT: Final = _Mark("ABSENT")
"""No value, and no failure behind it: dropped, or its branch was not taken."""
FAILED: Final = _Mark("FAILED")
"""No value because of a failure, here or further up."""
