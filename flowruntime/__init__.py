"""flowruntime: compiles workflows into reactive chains and runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowruntime.check import check_workflow
    from flowruntime.definition.load import dump_workflow, load_workflow, save_workflow
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.result import NodeOutcome, RunResult, StreamOutcome
    from flowruntime.execute.run import Run
    from flowruntime.installed import version
    from flowruntime.lifecycle import (
        configure_runtime,
        get_system_info,
        health_check,
        init,
        run,
        shutdown,
    )
    from flowruntime.runtime import FlowRuntime
    from flowruntime.state.store.opening import open_store
    from flowruntime.state.store.protocol import Store

_HOME = {
    "EventBus": "flowruntime.events.bus",
    "FlowRuntime": "flowruntime.runtime",
    "NodeOutcome": "flowruntime.execute.result",
    "Run": "flowruntime.execute.run",
    "RunResult": "flowruntime.execute.result",
    "Store": "flowruntime.state.store.protocol",
    "StreamOutcome": "flowruntime.execute.result",
    "check_workflow": "flowruntime.check",
    "dump_workflow": "flowruntime.definition.load",
    "open_store": "flowruntime.state.store.opening",
    "save_workflow": "flowruntime.definition.load",
    "configure_runtime": "flowruntime.lifecycle",
    "get_system_info": "flowruntime.lifecycle",
    "health_check": "flowruntime.lifecycle",
    "init": "flowruntime.lifecycle",
    "load_workflow": "flowruntime.definition.load",
    "run": "flowruntime.lifecycle",
    "shutdown": "flowruntime.lifecycle",
    "version": "flowruntime.installed",
}

__all__ = [
    "EventBus",
    "FlowRuntime",
    "NodeOutcome",
    "Run",
    "RunResult",
    "Store",
    "StreamOutcome",
    "check_workflow",
    "configure_runtime",
    "dump_workflow",
    "get_system_info",
    "health_check",
    "init",
    "load_workflow",
    "open_store",
    "run",
    "save_workflow",
    "shutdown",
    "version",
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
