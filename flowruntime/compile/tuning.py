"""The profile of a plan as there is something to say about it: each setting in effect, and who says it.

Owns: `profile_of`, and the structs it gives.
Does not own: profiles (flowcore.profiles), their text (flowruntime.compile.explain).

Always holds: every setting a profile may decide is listed with the value the runtime works with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from flowruntime.compile.bounds import budget_of, requests_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowruntime.compile.plan import Plan


Unit: TypeAlias = Literal["rows", "bytes", "seconds", "requests"]


class SettingDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it is in effect."""

    name: str
    amount: int | float
    unit: Unit
    source: str
    """Who says it: `settings.max_frame`, `flow.toml`, `profile low_latency`, `the default`, `derived`."""


class ProfileDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The profile a workflow runs with, and what follows from it."""

    name: str
    chosen_by: str
    settings: tuple[SettingDescription, ...]


def profile_of(plan: Plan, said_by: Mapping[str, str]) -> ProfileDescription:
    """What is in effect, and where it comes from.

    Args:
        plan: of a stream or a request.
        said_by: for settings the workflow does not say itself, who did: `{"max_frame": "flow.toml"}`.
    """
    tuning = plan.graph.tuning
    chosen_by = tuning.chosen_by
    if chosen_by == "settings.profile":
        chosen_by = said_by.get("profile", chosen_by)
    return ProfileDescription(
        name=tuning.profile, chosen_by=chosen_by, settings=tuple(_settings(plan, said_by))
    )


def _settings(plan: Plan, said_by: Mapping[str, str]) -> Iterator[SettingDescription]:
    tuning = plan.graph.tuning
    amounts: dict[str, tuple[int | float, Unit]] = {}
    if plan.mode == "stream":
        amounts["max_frame"] = (tuning.max_frame, "rows")
        amounts["max_bytes"] = (tuning.max_bytes, "bytes")
        amounts["commit_interval"] = (tuning.commit_interval.total_seconds(), "seconds")
    amounts["concurrency"] = (tuning.concurrency, "rows")
    amounts["linger"] = (tuning.linger.total_seconds(), "seconds")
    for name, (amount, unit) in amounts.items():
        source = tuning.source(name)
        if name in tuning.said:
            source = said_by.get(name, source)
        yield SettingDescription(name=name, amount=amount, unit=unit, source=source)
    yield _in_flight(plan, said_by)


def _in_flight(plan: Plan, said_by: Mapping[str, str]) -> SettingDescription:
    """The one bound a profile decides by others, where nobody says it."""
    graph, stream = plan.graph, plan.mode == "stream"
    if graph.settings.max_in_flight is not None:
        source = said_by.get("max_in_flight", "settings.max_in_flight")
    else:
        source = "derived from max_frame and concurrency" if stream else graph.tuning.source("max_requests")
    return SettingDescription(
        name="max_in_flight",
        amount=budget_of(graph) if stream else requests_of(graph),
        unit="rows" if stream else "requests",
        source=source,
    )
