"""Errors of a source's own code leave as SourceError: which source, which partition, what it could not do.

Owns: the translation. Does not own: what ends with such an error (partitions, run).

Always holds: errors of ours stay what they are; only a cancellation from outside and KeyboardInterrupt pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from flowcore.errors import FlowError, SourceError, describe_error
from flowruntime.execute.release import is_cancelled

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode


@contextlib.contextmanager
def as_source_error(what: str, node: ResolvedNode, partition: str | None = None) -> Generator[None]:
    """Whatever is raised inside, of whichever class, leaves as SourceError with the original as its cause."""
    try:
        yield
    except (FlowError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if is_cancelled(error):
            raise
        told = describe_error(error)
        where = f"source {node.id!r}" if partition is None else f"source {node.id!r} partition {partition!r}"
        raise SourceError(
            f"{where} {what}: {told['kind']}: {told['message']}", node=node.id, partition=partition
        ) from error
