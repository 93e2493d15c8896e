"""Profiles: named answers to the question what a workflow is to be good at.

Owns: the four profiles, the settings each of them stands for, `Tuning`, what is in effect.
Does not own: the settings themselves (flowcore.settings), carrying them out (the runtime).

Always holds: a profile sets the pace, never the outcome: nothing of it can fail a row. What a workflow says
itself wins over its profile, setting by setting.

How they trade: rows that wait inside are latency and memory; rows at work at once, and few large frames, are
throughput. Rows in flight follow from `max_frame` and `concurrency` where nobody says `max_in_flight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from flowcore.errors import DefinitionError

ProfileName: TypeAlias = Literal["balanced", "high_throughput", "low_latency", "memory_optimized"]

PROFILE_NAMES: Final[tuple[ProfileName, ...]] = get_args(ProfileName)
DEFAULT_PROFILE: Final[ProfileName] = "balanced"

_MIB: Final = 1 << 20
_EXPANDING: Final = 4
"""Rows an asynchronous generator works on at once: the others' number by this, at least 1."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The settings a profile stands for, where the workflow does not say them."""

    max_frame: int
    """Rows a source hands over at once at most."""
    max_bytes: int
    """Bytes of input in flight on a worker."""
    concurrency: int
    """Rows a coroutine node works on at once."""
    linger: timedelta
    """How long the first row of a batch waits for company."""
    commit_interval: timedelta
    """How often positions are committed."""
    max_requests: int
    """Requests of one workflow in work at once, where `max_in_flight` is not said."""


PROFILES: Final[Mapping[ProfileName, Profile]] = MappingProxyType(
    {
        "balanced": Profile(
            max_frame=2_048,
            max_bytes=64 * _MIB,
            concurrency=64,
            linger=timedelta(0),
            commit_interval=timedelta(seconds=1),
            max_requests=4_096,
        ),
        # Large frames, many calls at once, batches that wait to be full, few commits.
        "high_throughput": Profile(
            max_frame=8_192,
            max_bytes=256 * _MIB,
            concurrency=256,
            linger=timedelta(milliseconds=10),
            commit_interval=timedelta(seconds=5),
            max_requests=16_384,
        ),
        # Small frames, so that few rows wait: a row's time inside is rows in flight by throughput.
        "low_latency": Profile(
            max_frame=64,
            max_bytes=64 * _MIB,
            concurrency=64,
            linger=timedelta(0),
            commit_interval=timedelta(seconds=1),
            max_requests=1_024,
        ),
        # Few rows inside at all, whatever their size.
        "memory_optimized": Profile(
            max_frame=128,
            max_bytes=8 * _MIB,
            concurrency=16,
            linger=timedelta(0),
            commit_interval=timedelta(seconds=1),
            max_requests=256,
        ),
    }
)


def check_profile(name: ProfileName) -> ProfileName:
    """A profile's name as a caller gave it.

    Raises:
        DefinitionError: there is none of that name.
    """
    if name in PROFILE_NAMES:
        return name
    raise DefinitionError(f"there is no profile {name!r}; profiles are {', '.join(PROFILE_NAMES)}")


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What is in effect: each setting a profile may stand for, and where its value comes from."""

    profile: ProfileName
    chosen_by: str
    """Who chose the profile, as text: `settings.profile`, `the runtime`, `the run`, `the default`."""
    values: Profile
    said: frozenset[str]
    """Names of the settings the workflow says itself."""

    @property
    def max_frame(self) -> int:
        return self.values.max_frame

    @property
    def max_bytes(self) -> int:
        return self.values.max_bytes

    @property
    def concurrency(self) -> int:
        return self.values.concurrency

    @property
    def expanding(self) -> int:
        """Rows an asynchronous generator works on at once."""
        return max(1, self.values.concurrency // _EXPANDING)

    @property
    def linger(self) -> timedelta:
        return self.values.linger

    @property
    def commit_interval(self) -> timedelta:
        return self.values.commit_interval

    @property
    def max_requests(self) -> int:
        return self.values.max_requests

    def source(self, name: str) -> str:
        """Where the value of a setting comes from, as text."""
        if name in self.said:
            return f"settings.{name}"
        return "the default" if self.chosen_by == "the default" else f"profile {self.profile}"


def tuning(profile: ProfileName, chosen_by: str, said: Mapping[str, Any]) -> Tuning:
    """A profile with what a workflow says in its place.

    Args:
        profile: the chosen one.
        chosen_by: who chose it.
        said: settings the workflow says, by name of the field of `Profile`.
    """
    values = msgspec.structs.replace(PROFILES[profile], **said)
    return Tuning(profile=profile, chosen_by=chosen_by, values=values, said=frozenset(said))
