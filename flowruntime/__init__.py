"""flowruntime: compiles workflows into reactive chains and runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowruntime.definition.load import load_workflow
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.result import NodeOutcome, RunResult, StreamOutcome
    from flowruntime.runtime import FlowRuntime, run

_HOME = {
    "EventBus": "flowruntime.events.bus",
    "FlowRuntime": "flowruntime.runtime",
    "NodeOutcome": "flowruntime.execute.result",
    "RunResult": "flowruntime.execute.result",
    "StreamOutcome": "flowruntime.execute.result",
    "load_workflow": "flowruntime.definition.load",
    "run": "flowruntime.runtime",
}

__all__ = [
    "EventBus",
    "FlowRuntime",
    "NodeOutcome",
    "RunResult",
    "StreamOutcome",
    "load_workflow",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: a program pays only for what it uses."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
