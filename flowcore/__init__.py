"""flowcore: pure types and rules. What users write nodes, workflows and connectors with."""

from flowcore.connector import Assigned, Credit, Position, Reader, Revoked, Rows, Sink, Source
from flowcore.context import BatchContext, HttpClient, HttpRequest, HttpResponse, NodeContext, SinkContext, SourceContext
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
from flowcore.node import Node, Outputs, node
from flowcore.operator import operator
from flowcore.policies import Batch, Concurrency, NodePolicies, RetryPolicy
from flowcore.providers import EmbeddingProvider, Vector
from flowcore.settings import Limits, ParamSpec, Settings
from flowcore.states import Cancelled, Completed, Failed, Partial, Paused, Pending, Running, WorkflowState
from flowcore.values import Json, Secret, SecretRef, Stream, Value
from flowcore.workflow import Workflow

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
