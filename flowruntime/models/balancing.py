"""Which of several endpoints is asked, and which error makes it worth asking the next one.

Owns: `order`, `is_elsewhere`. Does not own: how an endpoint is (resource), asking it (call).

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from flowcore.errors import CircuitOpenError, LimitExceededError
from flowcore.llm.errors import (
    AnswerTooLargeError,
    AuthenticationError,
    BadAnswerError,
    ContentRefusedError,
    ModelNotFoundError,
    ProviderError,
    QuotaExhaustedError,
    RequestRefusedError,
)
from flowcore.llm.policy import Balance


class Health(NamedTuple):
    """How an endpoint is."""

    ready: bool
    """Its circuit is closed, or may be tried; it is not to be left alone."""
    busy: int
    """Calls under way and waiting."""


_OF_THE_REQUEST: Final = (RequestRefusedError, ContentRefusedError, AnswerTooLargeError)
_OF_THE_ENDPOINT: Final = (
    AuthenticationError, ModelNotFoundError, QuotaExhaustedError, BadAnswerError, CircuitOpenError,
    LimitExceededError,
)  # fmt: skip


def order(balance: Balance, health: Sequence[Health], turn: int) -> list[int]:
    """Indexes of the endpoints in the order in which they are asked; those that are not ready come last.

    Args:
        balance: `fallback` as declared, `round_robin` from the next one on, `least_busy` the idlest first.
        health: of each.
        turn: grows by one with each call, for `round_robin`.
    """
    count = len(health)
    indexes = list(range(count))
    if balance == "round_robin":
        indexes = [(turn + index) % count for index in indexes]
    elif balance == "least_busy":
        indexes.sort(key=lambda index: health[index].busy)
    return sorted(indexes, key=lambda index: not health[index].ready)


def is_elsewhere(error: BaseException) -> bool:
    """Whether another endpoint may answer what this one failed on.

    A request that one provider refuses, or whose content it will not answer, is not shown to another; a model
    this one does not have may well be there.
    """
    if isinstance(error, _OF_THE_ENDPOINT):
        return True
    if isinstance(error, _OF_THE_REQUEST):
        return False
    return isinstance(error, ProviderError) and error.retriable
