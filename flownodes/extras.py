"""Extras: what to say when a package that only some nodes need is not installed.

Owns: `MissingExtraError` and the guard that raises it.
Does not own: the import itself; each module imports what it uses, inside the guard, when it is first used.

Always holds: only the absence of the named packages is reported so; a broken import of ours stays what it is.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager

from flowcore.errors import BuildError


class MissingExtraError(BuildError, ImportError):
    """A package this node needs is not installed: attributes `package`, `install` (the exact line to run)."""

    package: str
    install: str


@contextmanager
def needing(packages: Collection[str], *, what: str, install: str) -> Generator[None]:
    """Import inside: when one of `packages` (top-level module names) is missing, say how to install it.

    Raises:
        MissingExtraError: one of `packages` cannot be found.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in packages:
            raise
        message = f"{what} needs the Python package {package!r}, which is not installed; run: {install}"
        raise MissingExtraError(message, package=package, install=install) from missing
