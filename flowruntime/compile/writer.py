"""Writing indented Python source, line by line."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class Writer:
    """Collects lines at the current depth."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    @property
    def next_line(self) -> int:
        """Number of the line that is written next, from 1."""
        return len(self._lines) + 1

    def line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def indented(self, really: bool = True) -> Generator[None]:  # noqa: FBT001, FBT002 - reads as a sentence
        """One level deeper; not at all when `really` is False, for blocks that are only sometimes nested."""
        self._depth += really
        try:
            yield
        finally:
            self._depth -= really

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
