"""Which files connectors may touch: those below the roots the operator allows.

Owns: the rule. Does not own: opening files (connectors).

Always holds: a path is judged after links are followed, so no link leads out of a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowcore.errors import PathRefusedError


class PathGuard:
    """Paths below `roots`; relative ones start at `base`."""

    def __init__(self, roots: Sequence[str] = (), *, base: str | None = None) -> None:
        self._base = Path(base) if base is not None else Path.cwd()
        self._roots = [Path(root).resolve() for root in roots] or [Path("/")]

    def allowed(self, path: str) -> str:
        """`path` made absolute, links followed.

        Raises:
            PathRefusedError: it lies outside every root, or holds a NUL byte.
        """
        if "\0" in path:
            raise PathRefusedError(f"path {path!r} holds a NUL byte", path=path)
        absolute = (self._base / path).resolve()
        if any(absolute.is_relative_to(root) for root in self._roots):
            return str(absolute)
        roots = ", ".join(str(root) for root in self._roots)
        raise PathRefusedError(
            f"path {path!r} is {str(absolute)!r}, outside the allowed roots ({roots}); allow its folder with "
            "`roots` in flow.toml, or FlowRuntime(roots=[...])",
            path=path,
        )
