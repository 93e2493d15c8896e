"""The Stream a node makes, passes on and reads.

Owns: `LiveStream` and `LiveSharedStream`, the two faces of a `Production`.
Does not own: producing (production), the row a stream belongs to (rows).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from flowcore.errors import ContractError
from flowcore.values import SharedStream, Stream
from flowruntime.substream.reader import Reader

if TYPE_CHECKING:
    from flowruntime.substream.production import Production

T = TypeVar("T")


class LiveStream(Stream[T], engine=True):
    """For one consumer."""

    __slots__ = ("production",)

    def __init__(self, production: Production[T]) -> None:
        super().__init__()
        self.production = production

    def _consume(self) -> Reader[T]:
        return Reader(self.production)

    def share(self, capacity: int = 64) -> SharedStream[T]:
        if self._taken:
            raise ContractError(
                f"{self!r} already has its one consumer, so it cannot be shared any more; share it first",
                stream=self,
            )
        self.production.share(capacity)
        self._taken = True
        return LiveSharedStream(self.production)

    def cancel(self) -> None:
        self.production.cancel()

    def __repr__(self) -> str:
        return repr(self.production)


class LiveSharedStream(SharedStream[T], engine=True):
    """For several consumers."""

    __slots__ = ("production",)

    def __init__(self, production: Production[T]) -> None:
        super().__init__()
        self.production = production

    def _consume(self) -> Reader[T]:
        return Reader(self.production)

    def share(self, capacity: int = 64) -> SharedStream[T]:
        del capacity
        return self

    def cancel(self) -> None:
        self.production.cancel()

    def __repr__(self) -> str:
        return repr(self.production)


def production_of(stream: object) -> Production[Any] | None:
    """What stands behind a stream of the engine's."""
    if isinstance(stream, LiveStream | LiveSharedStream):
        found: Production[Any] = stream.production  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - of any item type
        return found
    return None
