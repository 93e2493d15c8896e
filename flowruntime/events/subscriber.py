"""What bus and subscribers know of each other.

Owns: the two base classes, and the numbers a subscriber tells of itself.
Does not own: buffers and iteration (subscription), callbacks (listener), routing (bus).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Literal, TypeAlias

import msgspec

from flowcore.errors import ConfigError
from flowcore.events import ExecutionEvent, Gap

Policy: TypeAlias = Literal["drop_oldest", "drop_newest", "conflate", "block", "disconnect"]
FallCause: TypeAlias = Literal["raised", "lagged", "stalled", "unflushed"]


class SubscriptionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber at one moment: delivered + missed + buffered = published to it since it subscribed."""

    name: str
    policy: Policy | Literal["callback"]
    buffered: int
    capacity: int
    delivered: int
    missed: int
    ended: str | None
    """Why it ended; None while it lives."""


class Subscriber(ABC):
    """One receiver on the bus.

    Args:
        owner: the bus.
        kinds: the classes of events it wants, base classes included; None means all.
        name: for logs and statistics.
    """

    def __init__(self, owner: Owner, *, kinds: tuple[type[ExecutionEvent], ...] | None, name: str) -> None:
        self.kinds = kinds
        self.name = name
        self.ended: str | None = None
        """Why nothing more is published to it; None while it lives."""
        self.takes = 0
        """How often something was taken from its buffer: a stalled subscriber that moves is not cut off."""
        self._owner = owner

    @property
    def spare(self) -> int | None:
        """Events it certainly has room for when it holds nobody up; None: it never holds anybody up."""
        return None

    @abstractmethod
    def replay(self, entries: Iterable[ExecutionEvent | Gap]) -> None:
        """Take in what comes before everything published from now on."""

    @abstractmethod
    def deliver(self, event: ExecutionEvent) -> None:
        """Take in a published event; what user code raises comes out, and the event counts as missed."""

    @abstractmethod
    def skip(self, gap: Gap) -> None:
        """Take note of events that were published but can be delivered to nobody."""

    @abstractmethod
    async def flushed(self) -> None:
        """Return when everything buffered has been taken."""

    @abstractmethod
    def give_up(self) -> int:
        """Turn what is buffered into a Gap; returns how many events that were."""

    @abstractmethod
    def finish(self, reason: str) -> None:
        """The bus ends: publish nothing more to it."""

    @abstractmethod
    def lose(self, cause: FallCause, reason: str, error: BaseException | None = None) -> None:
        """Take it off the bus against its will."""

    @abstractmethod
    def close(self) -> None:
        """Leave; safe anywhere, inside its own callback too, and any number of times."""

    @abstractmethod
    def statistics(self) -> SubscriptionStatistics:
        """Its numbers now."""


def checked_kinds(
    kinds: Collection[type[ExecutionEvent]] | None, name: str
) -> tuple[type[ExecutionEvent], ...] | None:
    """`kinds` for routing.

    Raises:
        ConfigError: no kinds at all, or something that is not a class of events.
    """
    if kinds is None:
        return None
    if isinstance(kinds, type):
        raise ConfigError(
            f"kinds of event subscriber {name!r} is a collection of classes: write kinds={{{kinds.__name__}}}"
        )
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, ExecutionEvent)):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise ConfigError(f"kinds of event subscriber {name!r} must be classes of events, got {kind!r}")
    if not kinds:
        raise ConfigError(f"event subscriber {name!r} wants no kinds at all; leave kinds out to get all")
    return tuple(kinds)


class Owner(ABC):
    """What a subscriber needs of its bus."""

    @abstractmethod
    def forget(self, subscriber: Subscriber) -> None:
        """Publish nothing more to it."""

    @abstractmethod
    def stalled(self, subscriber: Subscriber) -> None:
        """Make publishers wait for it in `ready`."""

    @abstractmethod
    def moving(self, subscriber: Subscriber) -> None:
        """It no longer holds publishers up."""

    @abstractmethod
    def fell(self, subscriber: Subscriber, cause: FallCause, reason: str) -> None:
        """It was taken off against its will."""
