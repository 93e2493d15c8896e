"""flowruntime: compiles workflows into reactive chains and runs them."""

from flowruntime.definition.load import load_workflow
from flowruntime.events.bus import EventBus
from flowruntime.execute.result import NodeOutcome, RunResult, StreamOutcome
from flowruntime.runtime import FlowRuntime, run

__all__ = ["EventBus", "FlowRuntime", "NodeOutcome", "RunResult", "StreamOutcome", "load_workflow", "run"]
