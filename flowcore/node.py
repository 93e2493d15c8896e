"""How users write nodes: the `@node` decorator and the `Node` class.

Owns: turning a signature into a `NodeDefinition`, carried by the function or class as `__flow_node__`.
Does not own: finding nodes (registry) or running them (the runtime).

Always holds: a decorated function is still the plain function, to be called in a test; nothing is registered
here. Positional parameters are input ports, keyword-only ones are configuration, a context comes by its type.
"""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin

import msgspec

from flowcore.context import BatchContext, NodeContext
from flowcore.definition import (
    NODE_KINDS,
    ContextKind,
    NodeDefinition,
    NodeKind,
    Offload,
    Port,
    check_type_name,
    port_of,
    ports_of_struct,
    resolve_annotations,
    type_arguments,
)
from flowcore.errors import DefinitionError
from flowcore.policies import Batch, Concurrency, NodePolicies, OnError, RetryPolicy

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")
I = TypeVar("I")  # noqa: E741 - inputs, as in Node[C, I, O]
O = TypeVar("O")  # noqa: E741 - outputs

_ITERATORS = (Iterator, Generator, AsyncIterator, AsyncGenerator, AsyncIterable)


def node(  # noqa: PLR0913 - one keyword per option
    type: str,
    *,
    kind: NodeKind | None = None,
    category: str | None = None,
    concurrency: int | Concurrency | None = None,
    timeout: timedelta | None = None,
    retry: RetryPolicy | None = None,
    on_error: OnError | None = None,
    batch: Batch | None = None,
    key: str | None = None,
    resource: str | None = None,
    max_children: int | None = None,
    offload: Offload | None = None,
    computes: str | None = None,
    idempotent: bool = True,
    deterministic: bool = False,
) -> Callable[[F], F]:
    """Declare a function as a node type.

    Args:
        type: dotted name, `text.clean`.
        kind: how rows change; read from the signature when not given: a generator is `expand`, all else
            `map`.
        category: the group it is listed under; the first part of `type` when not given.
        concurrency: rows in work at once; a `Concurrency` also says in which order they leave.
        timeout: of one attempt.
        retry: what to do after a failed attempt.
        on_error: what a row does that failed for good.
        batch: the function takes several rows at once, and answers each.
        key: expression for the key of a row, for `by_key` order and keyed state.
        resource: name of a limit shared by several nodes.
        max_children: rows one row may expand to.
        offload: run a blocking function in a `thread`, a CPU-bound one in a `process`.
        computes: the config field (Expression or Template) that is the node's result; compiled into its
            neighbours.
        idempotent: calling twice with one input does no harm; retries of other errors than refusals need it.
        deterministic: equal inputs give equal outputs.

    Raises:
        DefinitionError: the signature cannot be used; the message names the parameter and what to write.
    """
    policies = NodePolicies(
        key=key,
        concurrency=Concurrency(max=concurrency) if isinstance(concurrency, int) else concurrency,
        timeout=timeout,
        retry=retry,
        on_error=on_error,
        batch=batch,
        resource=resource,
        max_children=max_children,
    )

    def declare(function: F) -> F:
        definition = _define_function(
            function,
            type,
            kind,
            category,
            policies,
            offload=offload,
            computes=computes,
            idempotent=idempotent,
            deterministic=deterministic,
        )
        function.__flow_node__ = definition  # pyright: ignore[reportFunctionMemberAccess] - functions carry attributes
        return function

    return declare


def _define_function(  # noqa: PLR0913 - what `node` was given
    function: Callable[..., Any],
    type_name: str,
    kind: NodeKind | None,
    category: str | None,
    policies: NodePolicies,
    *,
    offload: Offload | None,
    computes: str | None,
    idempotent: bool,
    deterministic: bool,
) -> NodeDefinition:
    check_type_name(type_name, function)
    if kind is not None and kind not in NODE_KINDS:
        raise DefinitionError(
            f"node {type_name!r}: kind={kind!r} is not one of {', '.join(sorted(NODE_KINDS))}", type=type_name
        )
    annotations = resolve_annotations(function)
    inputs: list[Port] = []
    config_fields: list[Any] = []
    context: ContextKind | None = None
    context_name: str | None = None
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = annotations.get(name, Any)
        found = _context_kind(annotation)
        if found is not None:
            context, context_name = found, name
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DefinitionError(
                f"node {type_name!r}: parameter '*{name}' has no fixed ports; name each input, or annotate "
                "one parameter Gather[T] to take all connections as a list",
                type=type_name,
            )
        elif parameter.kind is parameter.KEYWORD_ONLY:
            config_fields.append(_config_field(type_name, name, annotation, parameter.default))
        else:
            inputs.append(port_of(name, annotation, parameter.default))
    returns = annotations.get("return", Any)
    expands = (
        inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
        or get_origin(returns) in _ITERATORS
        or returns in _ITERATORS
    )
    actual: NodeKind = kind or ("expand" if expands else "map")
    structured = actual == "map" and isinstance(returns, type) and issubclass(returns, Outputs)
    batched = actual == "map" and policies.batch is not None
    definition = NodeDefinition(
        type=type_name,
        kind=actual,
        implementation=function,
        inputs=tuple(inputs),
        outputs=ports_of_struct(cast("type[msgspec.Struct]", returns))
        if structured
        else (Port(name="out", annotation=_out_type(actual, returns, batched=batched, inputs=inputs)),),
        config_type=msgspec.defstruct(
            f"{function.__name__}_config",
            config_fields,
            kw_only=True,
            forbid_unknown_fields=True,
            frozen=True,
            module=function.__module__,
        )
        if config_fields
        else None,
        policies=policies,
        is_async=inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
        is_class=False,
        structured_output=structured,
        batched=batched,
        offload=offload,
        context=context,
        context_name=context_name,
        computes=computes,
        idempotent=idempotent,
        deterministic=deterministic,
        category=category or type_name.partition(".")[0],
        description=inspect.getdoc(function) or "",
    )
    check_definition(definition)
    return definition


class Outputs(msgspec.Struct, kw_only=True):
    """Base of a struct with one field per output port; a field left UNSET emits nothing on that port.

    `class Split(Outputs): left: int | UnsetType = UNSET; right: int | UnsetType = UNSET`
    """


class Node(Generic[C, I, O]):
    """A node with a life cycle or several ports.

        class Geo(Node[GeoConfig, GeoIn, GeoOut], type="geo.route"): ...

    `GeoConfig`, `GeoIn` and `GeoOut` are msgspec structs: one field of `GeoIn` per input port, one of
    `GeoOut` per output port (UNSET emits nothing); any other type as `O` makes the single port `out`. One
    instance serves a worker: `initialize` once, `shutdown` always, also after a failure. A synchronous
    `execute` is fused into its neighbours.
    """

    __flow_node__: ClassVar[NodeDefinition]
    config: C

    def __init_subclass__(  # noqa: PLR0913 - one keyword per option
        cls,
        *,
        type: str | None = None,
        kind: NodeKind = "map",
        category: str | None = None,
        concurrency: int | Concurrency | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        on_error: OnError | None = None,
        batch: Batch | None = None,
        key: str | None = None,
        resource: str | None = None,
        idempotent: bool = True,
        deterministic: bool = False,
        exclusive_outputs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if type is None:
            return
        policies = NodePolicies(
            key=key,
            concurrency=Concurrency(max=concurrency) if isinstance(concurrency, int) else concurrency,
            timeout=timeout,
            retry=retry,
            on_error=on_error,
            batch=batch,
            resource=resource,
        )
        cls.__flow_node__ = _define_class(
            cls,
            type,
            kind,
            category,
            policies,
            idempotent=idempotent,
            deterministic=deterministic,
            exclusive=exclusive_outputs,
        )

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def outputs_for(cls, config: Mapping[str, Any]) -> tuple[Port, ...]:  # noqa: ARG003 - for those who override
        """The output ports of a node with this configuration, in the form of the file.

        Override it where they differ. Must not raise: a configuration that makes no sense is reported when it
        is decoded. `execute` then returns a struct derived from `Outputs` with a field per port.
        """
        return cls.__flow_node__.outputs

    async def initialize(self, ctx: NodeContext) -> None:
        """Before the first row; fails early when something is missing."""

    def execute(self, inputs: I, ctx: NodeContext) -> Any:
        """One row: `async def` for work that waits, `def` for work that does not. Returns `O`."""
        raise NotImplementedError(f"{type(self).__name__} has no execute method; define it")

    async def shutdown(self) -> None:
        """After the last row, whatever happened."""


def _define_class(
    cls: type[Node[Any, Any, Any]],
    type_name: str,
    kind: NodeKind,
    category: str | None,
    policies: NodePolicies,
    *,
    idempotent: bool,
    deterministic: bool,
    exclusive: bool,
) -> NodeDefinition:
    check_type_name(type_name, cls)
    config_type, in_type, out_type = type_arguments(cls, Node)
    if not (isinstance(in_type, type) and issubclass(in_type, msgspec.Struct)):
        raise DefinitionError(
            f"node {type_name!r} ({cls.__qualname__}): the second type argument must be a msgspec struct "
            f"with one field per input port, not {in_type!r}",
            type=type_name,
        )
    structured = isinstance(out_type, type) and issubclass(out_type, msgspec.Struct) and _is_ports(out_type)
    execute = cls.execute
    overrides_outputs = cls.outputs_for.__func__ is not Node.outputs_for.__func__
    expands = inspect.isgeneratorfunction(execute) or inspect.isasyncgenfunction(execute)
    definition = NodeDefinition(
        type=type_name,
        kind="expand" if expands else kind,
        implementation=cls,
        inputs=ports_of_struct(in_type),
        outputs=ports_of_struct(cast("type[msgspec.Struct]", out_type))
        if structured
        else (Port(name="out", annotation=bool if kind == "filter" else out_type),),
        config_type=config_type
        if isinstance(config_type, type) and issubclass(config_type, msgspec.Struct)
        else None,
        policies=policies,
        is_async=inspect.iscoroutinefunction(execute) or inspect.isasyncgenfunction(execute),
        is_class=True,
        input_type=in_type,
        structured_output=structured,
        outputs_of=cls.outputs_for if overrides_outputs else None,
        exclusive_outputs=exclusive,
        context="node",
        context_name="ctx",
        idempotent=idempotent,
        deterministic=deterministic,
        category=category or type_name.partition(".")[0],
        description=inspect.getdoc(cls) or "",
    )
    check_definition(definition)
    return definition


def _is_ports(struct: type[msgspec.Struct]) -> bool:
    """A struct stands for ports when it derives from Outputs or any field may be UNSET."""
    return issubclass(struct, Outputs) or any(
        field.default is msgspec.UNSET or msgspec.UnsetType in get_args(field.type)
        for field in msgspec.structs.fields(struct)
    )


def check_definition(definition: NodeDefinition) -> None:
    """Refuse what no compiler could use.

    Raises:
        DefinitionError: with the remedy.
    """
    name = f"node {definition.type!r} ({definition.location})"
    if definition.kind == "filter" and len(definition.inputs) < 1:
        raise DefinitionError(f"{name} is a filter and needs an input port", type=definition.type)
    if definition.kind in ("collect", "batch", "merge") and len(definition.inputs) != 1:
        raise DefinitionError(
            f"{name} is of kind {definition.kind!r} and takes exactly one input port, not "
            f"{len(definition.inputs)}",
            type=definition.type,
        )
    if definition.offload is not None and definition.is_async:
        raise DefinitionError(
            f"{name} is a coroutine and cannot be offloaded to a {definition.offload}; write a plain "
            "function",
            type=definition.type,
        )
    if definition.offload == "process" and definition.context is not None:
        raise DefinitionError(
            f"{name} takes a context, which cannot cross into a worker process; remove it or use "
            "offload='thread'",
            type=definition.type,
        )
    if definition.context == "batch" and not definition.batched:
        raise DefinitionError(
            f"{name} takes a BatchContext but declares no batch=Batch(...)", type=definition.type
        )
    if definition.batched and not definition.is_async and definition.offload is None:
        raise DefinitionError(
            f"{name} is a plain function with batch=...; make it a coroutine, or say offload='thread' or "
            "'process'",
            type=definition.type,
        )
    if definition.computes is not None and (
        definition.config_type is None or definition.computes not in definition.config_type.__struct_fields__
    ):
        raise DefinitionError(
            f"{name} computes {definition.computes!r}, which is not one of its configuration fields",
            type=definition.type,
        )


def _context_kind(annotation: Any) -> ContextKind | None:
    if annotation is NodeContext or annotation == "NodeContext":
        return "node"
    if annotation is BatchContext or annotation == "BatchContext":
        return "batch"
    return None


def _config_field(type_name: str, name: str, annotation: Any, default: Any) -> Any:
    if isinstance(annotation, str):
        raise DefinitionError(
            f"node {type_name!r}: the type {annotation!r} of configuration field {name!r} cannot be resolved "
            "at run time; import it outside `if TYPE_CHECKING:`",
            type=type_name,
        )
    if default is inspect.Parameter.empty:
        return (name, annotation)
    if isinstance(default, list | dict | set):
        return (name, annotation, msgspec.field(default_factory=lambda: type(default)(default)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType] - a copy per config
    return (name, annotation, default)


def _out_type(kind: NodeKind, returns: Any, *, batched: bool, inputs: list[Port]) -> Any:
    if isinstance(returns, str):
        return Any
    if kind == "filter":  # a filter lets its first input through unchanged
        return inputs[0].annotation if inputs else Any
    if kind == "expand" or batched:
        arguments = get_args(returns)
        return arguments[0] if arguments else Any
    return returns


def definition_of(thing: object) -> NodeDefinition | None:
    """The definition a decorated function or Node class carries; None when it is neither."""
    found = getattr(thing, "__flow_node__", None)
    return found if isinstance(found, NodeDefinition) else None


NodeMetadata = Mapping[str, Any]
