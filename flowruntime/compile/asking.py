"""Nodes that call models: who is asked and under which rules, as `flow plan` says it.

Owns: `policy_of`, `calls_of`, `paid_again`. Does not own: carrying calls out
(flowruntime.models), policies of nodes.

Always holds: a node is one of these when its configuration says `provider`, `model` and `calls`, whoever
wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flowcore.durations import format_duration
from flowcore.llm.policy import BudgetPolicy, CallPolicy

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode


def policy_of(node: ResolvedNode) -> CallPolicy | None:
    """What a node declares for its calls of models; None: it makes none that are known before it runs."""
    policy = getattr(node.config, "calls", None)
    return policy if isinstance(policy, CallPolicy) and hasattr(node.config, "provider") else None


def calls_of(node: ResolvedNode) -> str | None:
    """Who is asked, and under which rules; None: the node calls no model."""
    policy = policy_of(node)
    if policy is None:
        return None
    config: Any = node.config
    others = [f"{each.provider} {each.model}" for each in getattr(config, "fallback", ())]
    asked = ", then ".join([f"{config.provider} {config.model}", *others])
    return "; ".join([f"asks {asked}", *_limits(policy), *_rules(policy), *map(_budget, policy.budgets)])


def paid_again(node: ResolvedNode) -> str | None:
    """What a record that comes again costs, where it does."""
    from flowruntime.models.pricing import FREE

    policy = policy_of(node)
    config: Any = node.config
    if policy is None or policy.journal:
        return None
    asked = dict.fromkeys([config.provider, *(each.provider for each in getattr(config, "fallback", ()))])
    paid = [provider for provider in asked if provider not in FREE]
    if not paid:
        return None
    return (
        f"node {node.id!r}: what {' or '.join(paid)} answered is not kept: a record that comes again is paid "
        "again; calls: {journal: true} keeps it"
    )


def _limits(policy: CallPolicy) -> Iterator[str]:
    limits = policy.limits
    if limits.concurrency is not None:
        yield f"at most {limits.concurrency:,} calls at once"
    else:
        yield f"calls at once follow its latency, up to {limits.most:,}"
    if limits.requests_per_minute is not None:
        yield f"{limits.requests_per_minute:,} requests a minute"
    if limits.tokens_per_minute is not None:
        yield f"{limits.tokens_per_minute:,} tokens a minute"


def _rules(policy: CallPolicy) -> Iterator[str]:
    yield f"{policy.retry.max_attempts} attempts a call"
    if policy.hedge is not None:
        after = "the slowest 5 %" if policy.hedge.after is None else format_duration(policy.hedge.after)
        yield f"hedged after {after}"
    if policy.cache is not None:
        yield f"cache in {policy.cache.store}"
    if policy.journal:
        yield "journaled"
    if policy.lane != "normal":
        yield f"lane {policy.lane}"


def _budget(budget: BudgetPolicy) -> str:
    amounts = [
        *([] if budget.usd is None else [f"${budget.usd:g}"]),
        *([] if budget.tokens is None else [f"{budget.tokens:,} tokens"]),
    ]
    per = "" if budget.window is None else f" per {format_duration(budget.window)}"
    return f"budget {budget.name} {' and '.join(amounts)}{per}, then {budget.reaction}"
