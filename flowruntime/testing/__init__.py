"""What a user tests a workflow with; see docs/testing.md."""

from flowruntime.testing.collected import CollectedSink, Received, collected
from flowruntime.testing.contexts import (
    Emitted,
    Logged,
    StandaloneNodeContext,
    StandaloneSinkContext,
    StandaloneSourceContext,
    VirtualTime,
)
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.marbles import assert_marbles
from flowruntime.testing.recorder import EventRecorder, recorded
from flowruntime.testing.running import WorkflowRun, run_workflow
from flowruntime.testing.scripted import (
    CRASH,
    END,
    ScriptedCrashError,
    ScriptedSource,
    delay,
    error,
    scripted,
)
from flowruntime.testing.virtual import (
    DeadlockError,
    RealSleepError,
    StuckError,
    VirtualClock,
    VirtualLoop,
    run_virtual,
    wall_clock,
)

__all__ = [
    "CRASH",
    "END",
    "CollectedLetters",
    "CollectedSink",
    "DeadlockError",
    "Emitted",
    "EventRecorder",
    "Logged",
    "RealSleepError",
    "Received",
    "ScriptedCrashError",
    "ScriptedSource",
    "StandaloneNodeContext",
    "StandaloneSinkContext",
    "StandaloneSourceContext",
    "StuckError",
    "VirtualClock",
    "VirtualLoop",
    "VirtualTime",
    "WorkflowRun",
    "assert_marbles",
    "collected",
    "delay",
    "error",
    "recorded",
    "run_virtual",
    "run_workflow",
    "scripted",
    "wall_clock",
]
