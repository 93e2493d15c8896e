"""Settings: what holds for a whole workflow, and the params it declares.

Owns: `Settings`, `Limits`, `ParamSpec`, their bounds and defaults.
Does not own: the policies of one node (policies), filling params (binding).

Always holds: settings that exist are valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

import msgspec

from flowcore.policies import ON_ERROR_WORDS, NodePolicies, OnError
from flowcore.references import PARAM_NAME_PATTERN
from flowcore.shapes import Choice, Declared, Duration, Flag, Maybe, Nested, Shape, Size, Whole, WholeByName
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
    """Rows in work at once, over all nodes of one type, or of one named resource."""

    types: Mapping[str, int] = {}
    resources: Mapping[str, int] = {}

    title: ClassVar[str] = "limits"
    shapes: ClassVar[Mapping[str, Shape]] = {"types": WholeByName(), "resources": WholeByName()}


class Settings(Declared, frozen=True, kw_only=True):
    """What holds for the whole workflow.

    Attributes:
        delivery: what a crash may do to a record: repeat it, or lose it.
        on_error: what a row does that failed for good, where its node does not say.
        max_in_flight: rows in work on a worker; None: derived from the stages' concurrency.
        max_bytes: bytes in flight on a worker.
        max_frame: rows a source hands over at once at most.
        max_parallel: rows in work at once over all nodes; None: no limit beyond the nodes' own.
        limits: the same per node type and per named resource.
        timeout: of a whole request.
        max_output_bytes: size of one output of a node.
        max_children: rows one row may expand to.
        drain_timeout: how long a stop waits for rows in work.
        commit_interval: how often positions are committed.
        max_redelivery: records per partition that may come again after a crash; None: 4 x max_in_flight, at
            least 1,000.
        capture: keep the payloads of every node in events and results.
        allow_weaker: accept a node that weakens the delivery promised.
    """

    delivery: Delivery = "at_least_once"
    on_error: OnError = "stop_workflow"
    max_in_flight: int | None = None
    max_bytes: int = 64 * _MIB
    max_frame: int = 2_048
    max_parallel: int | None = None
    limits: Limits = Limits()
    timeout: timedelta | None = None
    max_output_bytes: int = 16 * _MIB
    max_children: int = 1_000_000
    drain_timeout: timedelta = timedelta(seconds=30)
    commit_interval: timedelta = timedelta(seconds=1)
    max_redelivery: int | None = None
    capture: bool = False
    allow_weaker: bool = False

    title: ClassVar[str] = "settings"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "delivery": Choice("at_least_once", "at_most_once"),
        "on_error": Choice(*ON_ERROR_WORDS),
        "max_in_flight": Maybe(Whole(least=1)),
        "max_bytes": Size(),
        "max_frame": Whole(least=1, most=1_000_000),
        "max_parallel": Maybe(Whole(least=1)),
        "limits": Nested(Limits),
        "timeout": Maybe(Duration()),
        "max_output_bytes": Size(),
        "max_children": Whole(least=1),
        "drain_timeout": Duration(zero=True),
        "commit_interval": Duration(),
        "max_redelivery": Maybe(Whole(least=1)),
        "capture": Flag(),
        "allow_weaker": Flag(),
    }

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
