"""Which files connectors may touch: those below the roots the operator allows.

Owns: the rule. Does not own: opening files (connectors).

Always holds: a path is judged after links are followed, so no link leads out of a root.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from flowcore.errors import PathRefusedError


class PathGuard:
    """Paths below `roots`; relative ones start at `base`."""

    def __init__(self, roots: Sequence[str] = (), *, base: str | None = None) -> None:
        self._base = os.getcwd() if base is None else base  # noqa: PTH109 - pathlib would cost every start
        self._roots = [os.path.realpath(root) for root in roots] or ["/"]

    def allowed(self, path: str) -> str:
        """`path` made absolute, links followed.

        Raises:
            PathRefusedError: it lies outside every root, holds a NUL byte, or is a circle of links.
        """
        if "\0" in path:
            raise PathRefusedError(f"path {path!r} holds a NUL byte", path=path)
        absolute = os.path.realpath(os.path.join(self._base, path))  # noqa: PTH118 - as above
        _refuse_circle(path, absolute)
        if any(_is_below(absolute, root) for root in self._roots):
            return absolute
        roots = ", ".join(self._roots)
        raise PathRefusedError(
            f"path {path!r} is {absolute!r}, outside the allowed roots ({roots}); allow its folder with "
            "`roots` in flow.toml, or FlowRuntime(roots=[...])",
            path=path,
        )


def _refuse_circle(path: str, absolute: str) -> None:
    try:
        os.stat(absolute)  # noqa: PTH116 - as above
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PathRefusedError(
                f"path {path!r} cannot be followed: {error}; remove links that lead in a circle", path=path
            ) from error


def _is_below(path: str, root: str) -> bool:
    """The folder itself, or something in it; `/data2` is not below `/data`."""
    return path == root or path.startswith(root if root.endswith("/") else f"{root}/")
