"""Which policies mean something for which kind of node.

Owns: the table of kinds and policies, with the remedy for each that does not fit.
Does not own: the values of policies (flowcore.policies), carrying them out (operators, flowcontrol).

Pure: definitions and policies in, findings out. A policy that would have no effect is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flowcore.definition import ConnectorDefinition, Definition
from flowcore.policies import POLICY_NAMES, NodePolicies

_WAITING: Final = frozenset(
    {"key", "concurrency", "timeout", "total_timeout", "retry", "breaker", "rate", "resource"}
)
_ALWAYS: Final = frozenset({"on_error", "max_output_bytes"})

_BY_ROLE: Final = {
    "source": frozenset({"on_error"}),
    "sink": frozenset({"on_error", "retry"}),
    "fused": _ALWAYS,
    "waiting": _ALWAYS | _WAITING,
    "batched": _ALWAYS | _WAITING | {"batch"},
    "expand": _ALWAYS | {"max_children"},
    "dripping": _ALWAYS | (_WAITING - {"key", "total_timeout"}) | {"max_children"},
    "collect": _ALWAYS,
    "batch": _ALWAYS | {"batch"},
    "operator": _ALWAYS | {"timeout"},
    "entry": _ALWAYS,
}
_WORDS: Final = {
    "source": "a source",
    "sink": "a sink",
    "fused": "a plain function that runs in one piece with its neighbours",
    "waiting": "a node that works on one row at a time",
    "batched": "a batch node",
    "expand": "a plain generator, which runs in one piece on the event loop",
    "dripping": "an asynchronous generator, whose children leave as they come",
    "collect": "a node that collects rows",
    "batch": "a node that makes batches",
    "operator": "a raw operator",
    "entry": "a raw operator that answers for rows when they enter",
}
_MAKE_IT_DRIP: Final = "make it an asynchronous generator (async def with yield)"
_MAKE_IT_WAIT: Final = (
    "remove it; a node of your own can wait: make it a coroutine (async def), or say offload='thread' or"
    " 'process' in @node"
)
_REMEDIES: Final = {
    ("fused", "batch"): "give it batch=Batch(...) in @node and make it a coroutine over lists",
    ("waiting", "batch"): "give it batch=Batch(...) in @node and let it take and return lists",
    ("fused", "max_children"): "only a generator yields several rows; remove it",
    ("expand", "timeout"): _MAKE_IT_DRIP,
    ("expand", "retry"): f"{_MAKE_IT_DRIP}, or retry in the node before it",
    **{("expand", name): _MAKE_IT_DRIP for name in ("concurrency", "resource", "breaker", "rate")},
    ("expand", "total_timeout"): "set a timeout on the node that does the waiting",
    ("dripping", "total_timeout"): "what its children wait for is not its time; set timeout, of each child",
    ("dripping", "key"): "children leave as they come, in no order of keys; remove it",
    (
        "source",
        "max_output_bytes",
    ): "bound what it reads in its configuration, or set it on the node after it",
    ("entry", "timeout"): "write it with settles='explicit', or remove it",
}


def role_of(definition: Definition) -> str:
    """What kind of stage carries the node, as far as policies care."""
    if isinstance(definition, ConnectorDefinition):
        return definition.role
    if definition.kind == "expand" and definition.is_async:
        return "dripping"
    if definition.kind == "operator" and definition.settles == "on_entry":
        return "entry"
    if definition.kind in ("expand", "collect", "batch", "operator"):
        return definition.kind
    if definition.batched:
        return "batched"
    return "waiting" if definition.is_async or definition.offload is not None else "fused"


def accepted(definition: Definition) -> frozenset[str]:
    """The policies a node of this type may have: each of them is carried out."""
    return _BY_ROLE[role_of(definition)]


def misplaced(definition: Definition, policies: NodePolicies) -> Iterator[tuple[str, str, str]]:
    """Policies said for a node of this type that cannot do anything: name, message, remedy."""
    role = role_of(definition)
    for name in POLICY_NAMES:
        if getattr(policies, name) is not None and name not in accepted(definition):
            waits = role == "fused" and name in _WAITING
            remedy = _MAKE_IT_WAIT if waits else _REMEDIES.get((role, name), "remove it")
            yield name, f"does not apply to {_WORDS[role]} ({definition.type!r})", remedy


def applicable(definition: Definition, policies: NodePolicies) -> NodePolicies:
    """Only the policies that mean something for this type: what a nested workflow passes on to its nodes."""
    allowed = accepted(definition)
    kept = {name: getattr(policies, name) for name in POLICY_NAMES if name in allowed}
    return NodePolicies(**kept)
