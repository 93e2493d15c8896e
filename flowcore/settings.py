"""Settings: what holds for a whole workflow, and the params it declares.

Owns: `Settings`, `Limits`, `DeadLetterPlace`, `ParamSpec`, their bounds and defaults.
Does not own: the policies of one node (policies), filling params (binding).

Always holds: settings that exist are valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

import msgspec

from flowcore.findings import Findings
from flowcore.on_error import OnErrorSetting, OnErrorShape
from flowcore.policies import NodePolicies, Rate
from flowcore.profiles import DEFAULT_PROFILE, PROFILE_NAMES, Profile, ProfileName, Tuning, tuning
from flowcore.references import PARAM_NAME_PATTERN
from flowcore.shapes import (
    ByName,
    Choice,
    Declared,
    Duration,
    Flag,
    Maybe,
    Nested,
    PlainMapping,
    Shape,
    Size,
    Text,
    Whole,
)
from flowcore.values import Kind, kind_of, same_value

Delivery = Literal["at_least_once", "at_most_once"]

PARAM_KINDS: Final = ("bool", "int", "float", "str", "bytes", "list", "dict")

_MIB = 1 << 20
_PARAM_NAME = re.compile(PARAM_NAME_PATTERN)


class ParamSpec(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One declared param; without a default it must be given."""

    default: Any = msgspec.UNSET
    kind: Kind | None = None
    """Kind the value must have; None: the default's kind, or any."""
    description: str = ""

    @property
    def required(self) -> bool:
        return self.default is msgspec.UNSET

    @property
    def effective_kind(self) -> Kind | None:
        """The kind a given value is coerced to; None takes any."""
        if self.kind is not None or self.default is msgspec.UNSET or self.default is None:
            return self.kind
        return kind_of(self.default)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParamSpec):
            return NotImplemented
        mine, theirs = (self.kind, self.description), (other.kind, other.description)
        return mine == theirs and same_value(self.default, other.default)

    __hash__ = None  # type: ignore[assignment] - holds mutable defaults


class Limits(Declared, frozen=True, kw_only=True):
    """Rows in work at once, over all nodes of one type, or of one named resource; calls per time of one.

    Attributes:
        types: rows in work at once, by node type.
        resources: rows in work at once, by the name that nodes say as their `resource`.
        rates: how many calls may begin per time, likewise.
    """

    types: Mapping[str, int] = {}
    resources: Mapping[str, int] = {}
    rates: Mapping[str, Rate] = {}

    title: ClassVar[str] = "limits"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "types": ByName(Whole(least=1)),
        "resources": ByName(Whole(least=1)),
        "rates": ByName(Nested(Rate, bare="rows")),
    }


class DeadLetterPlace(Declared, frozen=True, kw_only=True):
    """Where dead letters go: the type of a sink that can hold them, and its configuration."""

    type: str = ""
    config: Mapping[str, Any] = {}

    title: ClassVar[str] = "dead letter"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "type": Text(min_length=0, max_length=256),
        "config": PlainMapping(),
    }

    def check(self, findings: Findings) -> None:
        if not self.type:
            findings.add(
                ("type",),
                "is missing",
                remedy="name a sink that holds letters: {type: files.sink, config: {path: dead.jsonl}}",
            )


class Settings(Declared, frozen=True, kw_only=True):
    """What holds for the whole workflow.

    Attributes:
        delivery: what a crash may do to a record: repeat it, or lose it.
        on_error: what a row does that failed for good, where its node does not say.
        workflow_attempts: how often a record goes through the workflow at most, where `on_error` says
            `retry_workflow` and no other number.
        dead_letter: where rows go whose `on_error` is `dead_letter`.
        max_in_flight: rows in work on a worker; None: derived from the stages' concurrency.
        profile: what the workflow is to be good at; None: the runtime's, else `balanced`. It decides the five
            settings below it that are None.
        max_bytes: bytes in flight on a worker.
        max_frame: rows a source hands over at once at most.
        concurrency: rows a coroutine node works on at once, where the node does not say.
        linger: how long the first row for a batch node waits for company, where the node does not say.
        commit_interval: how often positions are committed.
        max_in_flight: rows in work on a worker; None: derived from the stages' concurrency.
        max_parallel: rows in work at once over all nodes; None: no limit beyond the nodes' own.
        limits: the same per node type and per named resource.
        timeout: of a whole request.
        max_output_bytes: size of one output of a node. None: 16 MiB for nodes with a stage of their own (they
            wait, run elsewhere, expand, collect or batch); plain functions fused into their neighbours are
            not measured, since that would cost more than most of them.
        max_children: rows one row may expand to.
        drain_timeout: how long a stop waits for rows in work.
        max_hold: how long a row may be held in memory in a continuous run (`control.delay`); what takes
            longer is
            stored, and the row comes back when it is over.
        max_redelivery: records per partition that may come again after a crash; None: 4 x max_in_flight, at
            least 1,000.
        quarantine_after: deaths of the process on one record after which it becomes a dead letter instead of
            being worked on again; None: it never does.
        capture: keep the payloads of every node in events and results.
        allow_weaker: accept a node that weakens the delivery promised.
    """

    delivery: Delivery = "at_least_once"
    on_error: OnErrorSetting = "stop_workflow"
    workflow_attempts: int = 3
    dead_letter: DeadLetterPlace | None = None
    profile: ProfileName | None = None
    max_bytes: int | None = None
    max_frame: int | None = None
    concurrency: int | None = None
    linger: timedelta | None = None
    commit_interval: timedelta | None = None
    max_in_flight: int | None = None
    max_parallel: int | None = None
    limits: Limits = Limits()
    timeout: timedelta | None = None
    max_output_bytes: int | None = None
    max_children: int = 1_000_000
    drain_timeout: timedelta = timedelta(seconds=30)
    max_hold: timedelta = timedelta(seconds=60)
    max_redelivery: int | None = None
    quarantine_after: int | None = 3
    capture: bool = False
    allow_weaker: bool = False

    title: ClassVar[str] = "settings"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "delivery": Choice("at_least_once", "at_most_once"),
        "on_error": OnErrorShape(of_node=False),
        "workflow_attempts": Whole(least=1, most=100),
        "dead_letter": Maybe(Nested(DeadLetterPlace)),
        "profile": Maybe(Choice(*PROFILE_NAMES)),
        "max_bytes": Maybe(Size()),
        "max_frame": Maybe(Whole(least=1, most=1_000_000)),
        "concurrency": Maybe(Whole(least=1, most=1_000_000)),
        "linger": Maybe(Duration(zero=True)),
        "commit_interval": Maybe(Duration()),
        "max_in_flight": Maybe(Whole(least=1)),
        "max_parallel": Maybe(Whole(least=1)),
        "limits": Nested(Limits),
        "timeout": Maybe(Duration()),
        "max_output_bytes": Maybe(Size()),
        "max_children": Whole(least=1),
        "drain_timeout": Duration(zero=True),
        "max_hold": Duration(),
        "max_redelivery": Maybe(Whole(least=1)),
        "quarantine_after": Maybe(Whole(least=1, most=1_000)),
        "capture": Flag(),
        "allow_weaker": Flag(),
    }

    def tuned(self, default: ProfileName | None = None, override: ProfileName | None = None) -> Tuning:
        """What is in effect of the settings a profile may decide.

        Args:
            default: the runtime's profile, for a workflow that names none.
            override: the run's, whatever the workflow names.
        """
        choices: tuple[tuple[ProfileName | None, str], ...] = (
            (override, "the run"),
            (self.profile, "settings.profile"),
            (default, "the runtime"),
        )
        name, chosen_by = DEFAULT_PROFILE, "the default"
        for chosen, by in choices:
            if chosen is not None:
                name, chosen_by = chosen, by
                break
        fields = Profile.__struct_fields__
        said = {field: getattr(self, field, None) for field in fields}
        return tuning(name, chosen_by, {field: value for field, value in said.items() if value is not None})

    def as_policies(self) -> NodePolicies:
        """The lowest layer of `merge_policies`."""
        return NodePolicies(
            on_error=self.on_error, max_children=self.max_children, max_output_bytes=self.max_output_bytes
        )


def param_name_fault(name: object) -> str | None:
    """Why `name` cannot name a param, or None when it can."""
    if isinstance(name, str) and _PARAM_NAME.fullmatch(name):
        return None
    return "must be a letter or '_', then letters, digits or '_'"
