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
from flowcore.on_error import OnErrorPolicy, OnErrorShape
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

Order = Literal["ordered", "by_key", "unordered"]
WhenOpen = Literal["fail", "wait"]

ORDER_WORDS: Final = ("ordered", "by_key", "unordered")
WHEN_OPEN_WORDS: Final = ("fail", "wait")


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
        budget: retries per first attempt that all rows of the node, or of its resource, may make together,
            beside a small reserve; a row whose retry is beyond it fails at once. 0 to 1,000.
    """

    max_attempts: int = 3
    initial: timedelta = timedelta(milliseconds=200)
    multiplier: float = 2.0
    max_delay: timedelta = timedelta(seconds=30)
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ()
    budget: float = 0.2

    title: ClassVar[str] = "retry policy"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "max_attempts": Whole(least=1, most=1_000),
        "initial": Duration(zero=True),
        "multiplier": Number(least=1.0, most=1_000.0),
        "max_delay": Duration(zero=True),
        "jitter": Number(least=0.0, most=1.0),
        "retry_on": TextList(),
        "budget": Number(least=0.0, most=1_000.0),
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
        linger: how long the first row may wait for company; 0 takes what is there; None: the setting
            `linger` of the workflow, 0 unless said or decided by its profile.
    """

    max_items: int
    linger: timedelta | None = None

    title: ClassVar[str] = "batch"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "max_items": Whole(least=1, most=1_000_000),
        "linger": Maybe(Duration(zero=True)),
    }


class Breaker(Declared, frozen=True, kw_only=True):
    """Stop calling what does not answer: open after enough failures, then let one probe find out.

    A call counts once, however often it was retried. Connections refused, timeouts and 5xx count as failures;
    429, cancelled calls and errors of the call's own do not.

    Attributes:
        failures: of the last `window` calls that open it.
        window: calls looked at.
        period: calls that ended longer ago are forgotten.
        open_for: how long calls are refused before a probe.
        when_open: `fail` the row at once, or `wait`: rows wait, and the source with them.
    """

    failures: int = 10
    window: int = 20
    period: timedelta = timedelta(seconds=60)
    open_for: timedelta = timedelta(seconds=15)
    when_open: WhenOpen = "fail"

    title: ClassVar[str] = "breaker"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "failures": Whole(least=1, most=10_000),
        "window": Whole(least=1, most=10_000),
        "period": Duration(),
        "open_for": Duration(),
        "when_open": Choice(*WHEN_OPEN_WORDS),
    }

    def check(self, findings: Findings) -> None:
        if self.failures > self.window:
            remedy = "raise window or lower failures"
            findings.add(("failures",), f"must not be more than window ({self.window})", remedy=remedy)


class Rate(Declared, frozen=True, kw_only=True):
    """How many calls may begin per time.

    Attributes:
        rows: calls, or rows of batches, in `per`.
        per: the time.
        burst: how many may begin at once after a pause; never fewer than a batch has rows.
    """

    rows: int
    per: timedelta = timedelta(seconds=1)
    burst: int = 1

    title: ClassVar[str] = "rate"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "rows": Whole(least=1, most=1_000_000_000),
        "per": Duration(),
        "burst": Whole(least=1, most=1_000_000_000),
    }


class NodePolicies(Declared, frozen=True, kw_only=True):
    """Every flat policy field of a node; None: not said in this layer.

    Attributes:
        key: expression for the key of a row, for `by_key` order and keyed state.
        concurrency: rows in work at once and their order.
        timeout: of one attempt; for an asynchronous generator, of each child it is asked for.
        total_timeout: of all attempts of a row and the waits between them.
        retry: what to do after a failed attempt; a generator is begun anew only until a child has left.
        breaker: stop calling what does not answer; shared by all nodes of the same `resource`.
        rate: how many calls may begin per time; for an asynchronous generator, how many may be begun.
        on_error: what a row does that failed for good; `dead_letter` needs `settings.dead_letter`, with a
            `Fallback` it goes on.
        batch: give the node several rows at once.
        resource: name of a limit shared by several nodes, set in `settings.limits.resources`.
        max_children: rows one row may expand to.
        max_output_bytes: size of one output (`flowcore.sizes` says what counts); a larger one fails its row.
    """

    key: str | None = None
    concurrency: Concurrency | None = None
    timeout: timedelta | None = None
    total_timeout: timedelta | None = None
    retry: RetryPolicy | None = None
    breaker: Breaker | None = None
    rate: Rate | None = None
    on_error: OnErrorPolicy | None = None
    batch: Batch | None = None
    resource: str | None = None
    max_children: int | None = None
    max_output_bytes: int | None = None

    title: ClassVar[str] = "policy"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "key": Maybe(Text()),
        "concurrency": Maybe(Nested(Concurrency, bare="max")),
        "timeout": Maybe(Duration()),
        "total_timeout": Maybe(Duration()),
        "retry": Maybe(Nested(RetryPolicy)),
        "breaker": Maybe(Nested(Breaker)),
        "rate": Maybe(Nested(Rate, bare="rows")),
        "on_error": Maybe(OnErrorShape(of_node=True)),
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
    total_timeout: timedelta | str | None
    retry: RetryPolicy | Mapping[str, object] | None
    breaker: Breaker | Mapping[str, object] | None
    rate: Rate | int | Mapping[str, object] | None
    on_error: OnErrorPolicy | Literal["retry_workflow"] | Mapping[str, object] | None
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
