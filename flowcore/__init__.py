"""flowcore: pure types and rules. What users write nodes, workflows and connectors with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# These two have the names of their modules, so they must be bound when the modules are.
from flowcore.node import node
from flowcore.operator import operator

if TYPE_CHECKING:
    from flowcore.connector import Assigned, Credit, Position, Reader, Revoked, Rows, Sink, Source
    from flowcore.context import (
        BatchContext,
        HttpClient,
        HttpRequest,
        HttpResponse,
        NodeContext,
        SinkContext,
        SourceContext,
    )
    from flowcore.definition import Gather
    from flowcore.errors import BuildError, FlowError, Problem, RunError, ValidationFailedError
    from flowcore.events import (
        Event,
        ExecutionEvent,
        Gap,
        LoopBlocked,
        NodeCompleted,
        NodeEvent,
        NodeFailed,
        NodeRetrying,
        NodeSkipped,
        NodeStarted,
        StageProgress,
        WorkflowCancelled,
        WorkflowCompleted,
        WorkflowFailed,
        WorkflowPartial,
        WorkflowPaused,
        WorkflowResumed,
        WorkflowStarted,
    )
    from flowcore.expression import Expression, Template
    from flowcore.frame import Record
    from flowcore.node import Node, Outputs
    from flowcore.policies import Batch, Concurrency, NodePolicies, RetryPolicy
    from flowcore.providers import EmbeddingProvider, Vector
    from flowcore.settings import Limits, ParamSpec, Settings
    from flowcore.states import (
        Cancelled,
        Completed,
        Failed,
        Partial,
        Paused,
        Pending,
        Running,
        WorkflowState,
    )
    from flowcore.values import Json, Secret, SecretRef, Stream, Value
    from flowcore.workflow import Workflow

_HOME = {
    "Assigned": "flowcore.connector",
    "Batch": "flowcore.policies",
    "BatchContext": "flowcore.context",
    "BuildError": "flowcore.errors",
    "Cancelled": "flowcore.states",
    "Completed": "flowcore.states",
    "Concurrency": "flowcore.policies",
    "Credit": "flowcore.connector",
    "EmbeddingProvider": "flowcore.providers",
    "Event": "flowcore.events",
    "ExecutionEvent": "flowcore.events",
    "Expression": "flowcore.expression",
    "Failed": "flowcore.states",
    "FlowError": "flowcore.errors",
    "Gap": "flowcore.events",
    "Gather": "flowcore.definition",
    "HttpClient": "flowcore.context",
    "HttpRequest": "flowcore.context",
    "HttpResponse": "flowcore.context",
    "Json": "flowcore.values",
    "Limits": "flowcore.settings",
    "LoopBlocked": "flowcore.events",
    "Node": "flowcore.node",
    "NodeCompleted": "flowcore.events",
    "NodeContext": "flowcore.context",
    "NodeEvent": "flowcore.events",
    "NodeFailed": "flowcore.events",
    "NodePolicies": "flowcore.policies",
    "NodeRetrying": "flowcore.events",
    "NodeSkipped": "flowcore.events",
    "NodeStarted": "flowcore.events",
    "Outputs": "flowcore.node",
    "ParamSpec": "flowcore.settings",
    "Partial": "flowcore.states",
    "Paused": "flowcore.states",
    "Pending": "flowcore.states",
    "Position": "flowcore.connector",
    "Problem": "flowcore.errors",
    "Reader": "flowcore.connector",
    "Record": "flowcore.frame",
    "RetryPolicy": "flowcore.policies",
    "Revoked": "flowcore.connector",
    "Rows": "flowcore.connector",
    "RunError": "flowcore.errors",
    "Running": "flowcore.states",
    "Secret": "flowcore.values",
    "SecretRef": "flowcore.values",
    "Settings": "flowcore.settings",
    "Sink": "flowcore.connector",
    "SinkContext": "flowcore.context",
    "Source": "flowcore.connector",
    "SourceContext": "flowcore.context",
    "StageProgress": "flowcore.events",
    "Stream": "flowcore.values",
    "Template": "flowcore.expression",
    "ValidationFailedError": "flowcore.errors",
    "Value": "flowcore.values",
    "Vector": "flowcore.providers",
    "Workflow": "flowcore.workflow",
    "WorkflowCancelled": "flowcore.events",
    "WorkflowCompleted": "flowcore.events",
    "WorkflowFailed": "flowcore.events",
    "WorkflowPartial": "flowcore.events",
    "WorkflowPaused": "flowcore.events",
    "WorkflowResumed": "flowcore.events",
    "WorkflowStarted": "flowcore.events",
    "WorkflowState": "flowcore.states",
}

__all__ = [
    "Assigned",
    "Batch",
    "BatchContext",
    "BuildError",
    "Cancelled",
    "Completed",
    "Concurrency",
    "Credit",
    "EmbeddingProvider",
    "Event",
    "ExecutionEvent",
    "Expression",
    "Failed",
    "FlowError",
    "Gap",
    "Gather",
    "HttpClient",
    "HttpRequest",
    "HttpResponse",
    "Json",
    "Limits",
    "LoopBlocked",
    "Node",
    "NodeCompleted",
    "NodeContext",
    "NodeEvent",
    "NodeFailed",
    "NodePolicies",
    "NodeRetrying",
    "NodeSkipped",
    "NodeStarted",
    "Outputs",
    "ParamSpec",
    "Partial",
    "Paused",
    "Pending",
    "Position",
    "Problem",
    "Reader",
    "Record",
    "RetryPolicy",
    "Revoked",
    "Rows",
    "RunError",
    "Running",
    "Secret",
    "SecretRef",
    "Settings",
    "Sink",
    "SinkContext",
    "Source",
    "SourceContext",
    "StageProgress",
    "Stream",
    "Template",
    "ValidationFailedError",
    "Value",
    "Vector",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowCompleted",
    "WorkflowFailed",
    "WorkflowPartial",
    "WorkflowPaused",
    "WorkflowResumed",
    "WorkflowStarted",
    "WorkflowState",
    "node",
    "operator",
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
