"""Health: how a provider, connector or store answers the question whether it can work now.

Owns: `HealthCheck`, the protocol such a component may implement, its answer `Health`, and the report of all.
Does not own: asking, timeouts, what is asked (flowruntime.health).

Always holds: a report is as bad as the worst answer in it; no answer counts as the worst.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from flowcore.context import CommonContext

HealthState: TypeAlias = Literal["ok", "degraded", "failing"]

_WORST_FIRST: Final[tuple[HealthState, ...]] = ("failing", "degraded", "ok")


class Health(msgspec.Struct, frozen=True):
    """What a component says of itself.

    degraded    it works, but not as it should: slow, near a limit, on a fallback.
    failing     what is sent to it now fails.
    """

    state: HealthState
    detail: str = ""
    """For people: what was found, and what to do. No secrets."""
    latency_s: float | None = None
    """How long the outside system took; None: what the whole check took."""


class HealthContext(CommonContext, Protocol):
    """What a check is given."""

    def allowed_path(self, path: str) -> str:
        """`path` made absolute.

        Raises:
            PathRefusedError: outside the roots the operator allows.
        """
        ...


@runtime_checkable
class HealthCheck(Protocol):
    """A provider, source, sink, node or store that can be asked whether it can work now."""

    async def health(self, ctx: HealthContext) -> Health:
        """One quick look that changes nothing: a ping, an access check, never a whole request.

        May be called before the component is opened, while it works, and several times at once. What it
        raises counts as failing; one that does not answer in time is cancelled and counts as failing, too.
        """
        ...


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one component."""

    name: str
    """`triage/alerts`: workflow and node; `provider local`; `memory`."""
    state: HealthState
    detail: str = ""
    latency_s: float = 0.0


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """All answers, and what they come to."""

    state: HealthState
    checks: tuple[CheckResult, ...]
    at: float
    """When it was asked, Unix seconds."""
    duration_s: float

    @property
    def ok(self) -> bool:
        """Everything that was asked can work as it should."""
        return self.state == "ok"

    def of(self, state: HealthState) -> tuple[CheckResult, ...]:
        """The answers of one kind."""
        return tuple(check for check in self.checks if check.state == state)


def worst(states: Iterable[HealthState]) -> HealthState:
    """The worst of several states; ok when there are none."""
    found = set(states)
    for state in _WORST_FIRST:
        if state in found:
            return state
    return "ok"
