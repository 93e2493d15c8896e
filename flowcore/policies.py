"""Policies: how a node runs, as flat fields a file, `wf.add` and `@node` can all say.

Owns: the fields, their bounds, their plain form, and which layer wins when several speak.
Does not own: carrying them out (flowruntime.compile, operators, resilience).

Always holds: a policy that exists is valid; None means "not said here", so the next layer decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Final, Literal, TypedDict

import msgspec

from flowcore.findings import Findings
from flowcore.shapes import (
    Choice,
    Declared,
    Duration,
    Maybe,
    Nested,
    Number,
    Shape,
    Size,
    Text,
    TextList,
    Whole,
)

OnError = Literal["stop_workflow", "continue"]
Order = Literal["ordered", "by_key", "unordered"]

ON_ERROR_WORDS: Final = ("stop_workflow", "continue")
ORDER_WORDS: Final = ("ordered", "by_key", "unordered")


class RetryPolicy(Declared, frozen=True, kw_only=True):
    """Repeat a failed attempt, waiting `initial`, then `multiplier` times longer each time.

    Attributes:
        max_attempts: attempts in all, the first included; 1 never repeats.
        initial: wait before the second attempt.
        multiplier: growth of the wait from one attempt to the next.
        max_delay: cap of a wait, applied after jitter.
        jitter: share of the wait that is random, 0 to 1.
        retry_on: names of error classes worth repeating; empty: those whose class says `retriable`, and any
            ConnectionError or TimeoutError.
    """

    max_attempts: int = 3
    initial: timedelta = timedelta(milliseconds=200)
    multiplier: float = 2.0
    max_delay: timedelta = timedelta(seconds=30)
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ()

    title: ClassVar[str] = "retry policy"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "max_attempts": Whole(least=1, most=1_000),
        "initial": Duration(zero=True),
        "multiplier": Number(least=1.0, most=1_000.0),
        "max_delay": Duration(zero=True),
        "jitter": Number(least=0.0, most=1.0),
        "retry_on": TextList(),
    }

    def check(self, findings: Findings) -> None:
        if self.initial > self.max_delay:
            remedy = "raise max_delay or lower initial"
            findings.add(("initial",), f"must not be longer than max_delay ({self.max_delay})", remedy=remedy)


class Concurrency(Declared, frozen=True, kw_only=True):
    """How many rows a node works on at once, and in which order their results leave.

    Attributes:
        max: rows in work at once on one worker; None: the runtime's default for the kind of node.
        order: `ordered` as they came, `by_key` in order within each key, `unordered` as they finish;
            None: ordered for streams.
        max_queued_per_key: rows of one key that may wait, for `by_key`.
    """

    max: int | None = None
    order: Order | None = None
    max_queued_per_key: int = 1_000

    title: ClassVar[str] = "concurrency"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "max": Maybe(Whole(least=1, most=1_000_000)),
        "order": Maybe(Choice(*ORDER_WORDS)),
        "max_queued_per_key": Whole(least=1),
    }


class Batch(Declared, frozen=True, kw_only=True):
    """Give a node several rows at once.

    Attributes:
        max_items: rows in one call at most.
        linger: how long the first row may wait for company; 0 takes what is there.
    """

    max_items: int
    linger: timedelta = timedelta(0)

    title: ClassVar[str] = "batch"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "max_items": Whole(least=1, most=1_000_000),
        "linger": Duration(zero=True),
    }


class NodePolicies(Declared, frozen=True, kw_only=True):
    """Every flat policy field of a node; None: not said in this layer.

    Attributes:
        key: expression for the key of a row, for `by_key` order and keyed state.
        concurrency: rows in work at once and their order.
        timeout: of one attempt.
        retry: what to do after a failed attempt.
        on_error: what a row does that failed for good.
        batch: give the node several rows at once.
        resource: name of a limit shared by several nodes, set in `settings.limits.resources`.
        max_children: rows one row may expand to.
        max_output_bytes: size of one output; a larger one fails its row.
    """

    key: str | None = None
    concurrency: Concurrency | None = None
    timeout: timedelta | None = None
    retry: RetryPolicy | None = None
    on_error: OnError | None = None
    batch: Batch | None = None
    resource: str | None = None
    max_children: int | None = None
    max_output_bytes: int | None = None

    title: ClassVar[str] = "policy"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "key": Maybe(Text()),
        "concurrency": Maybe(Nested(Concurrency, bare="max")),
        "timeout": Maybe(Duration()),
        "retry": Maybe(Nested(RetryPolicy)),
        "on_error": Maybe(Choice(*ON_ERROR_WORDS)),
        "batch": Maybe(Nested(Batch, bare="max_items")),
        "resource": Maybe(Text(max_length=256)),
        "max_children": Maybe(Whole(least=1)),
        "max_output_bytes": Maybe(Size()),
    }


class PolicyFields(TypedDict, total=False):
    """What `wf.add(..., **policies)` takes: the native values or their plain forms."""

    key: str | None
    concurrency: Concurrency | int | Mapping[str, object] | None
    timeout: timedelta | str | None
    retry: RetryPolicy | Mapping[str, object] | None
    on_error: OnError | None
    batch: Batch | int | Mapping[str, object] | None
    resource: str | None
    max_children: int | None
    max_output_bytes: int | str | None


NO_POLICIES: Final = NodePolicies()
POLICY_NAMES: Final = tuple(NodePolicies.shapes)


def merge_policies(*layers: NodePolicies) -> NodePolicies:
    """One answer from several layers: for each field the first layer that says something wins.

    Args:
        layers: highest precedence first: file or `wf.add`, then `@node`, then settings. A struct field
            (`retry`, `concurrency`, `batch`) is taken whole, never mixed from two layers.
    """
    said: dict[str, object] = {}
    for layer in reversed(layers):
        said |= {name: value for name, value in msgspec.structs.asdict(layer).items() if value is not None}
    return NodePolicies(**said)  # pyright: ignore[reportArgumentType] - each value comes from the same field
