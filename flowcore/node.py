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
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, ClassVar, Final, Generic, TypeVar, Unpack, cast, get_args, get_origin

import msgspec

from flowcore.assignable import is_stream
from flowcore.context import BatchContext, NodeContext
from flowcore.definition import (
    NODE_KINDS,
    ContextKind,
    NodeDefinition,
    NodeKind,
    Offload,
    Port,
    check_function,
    check_type_name,
    port_of,
    ports_of_struct,
    resolve_annotations,
    type_arguments,
)
from flowcore.errors import DefinitionError
from flowcore.findings import Findings
from flowcore.policies import NO_POLICIES, NodePolicies, PolicyFields
from flowcore.shapes import read_declared

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")
I = TypeVar("I")  # noqa: E741 - inputs, as in Node[C, I, O]
O = TypeVar("O")  # noqa: E741 - outputs

_FUNCTION_KINDS: Final = NODE_KINDS - {"operator"}
_CLASS_KINDS: Final = frozenset({"map", "filter", "expand"})
_ASYNC_ITERATORS = (AsyncIterator, AsyncGenerator, AsyncIterable)
_ITERATORS = (Iterator, Generator, *_ASYNC_ITERATORS)


def node(  # noqa: PLR0913 - one keyword per thing a node may say
    type: str,
    *,
    kind: NodeKind | None = None,
    category: str | None = None,
    offload: Offload | None = None,
    computes: str | None = None,
    waits: bool = False,
    delays: str | None = None,
    idempotent: bool = True,
    deterministic: bool = False,
    **policies: Unpack[PolicyFields],
) -> Callable[[F], F]:
    """Declare a function as a node type.

    Args:
        type: dotted name, `text.clean`.
        kind: how rows change; read from the signature when not given: a generator is `expand`, all else
            `map`.
        category: the group it is listed under; the first part of `type` when not given.
        offload: run a blocking function in a `thread`, a CPU-bound one in a `process`.
        computes: the config field (Expression or Template) that is the node's result; compiled into its
            neighbours.
        waits: it may call `ctx.wait`, for a person or a system: a coroutine that takes a NodeContext.
        delays: the config field, a `timedelta`, that says how long a row waits in `ctx.sleep`: in a
            continuous run
            the engine stores the row where that is longer than `max_hold`, and calls the node again then.
        idempotent: calling twice with one input does no harm; retries of other errors than refusals need it.
        deterministic: equal inputs give equal outputs.
        policies: how it runs unless a workflow says otherwise, as in a file: `concurrency=64`,
            `timeout=timedelta(seconds=2)`, `retry=RetryPolicy(...)`, `batch=Batch(...)`; see `NodePolicies`.
            With `batch` the function takes several rows at once, and answers each.

    Raises:
        DefinitionError: the signature cannot be used; the message names the parameter and what to write.
        ValidationFailedError: policies are wrong; every one is listed.
    """
    if callable(type):
        name = getattr(type, "__name__", "function")
        raise DefinitionError(f"@node needs the type's name: write @node('text.clean') above {name!r}")
    said = _policies(type, policies)

    def declare(function: F) -> F:
        definition = _define_function(
            function,
            type,
            kind,
            category,
            said,
            offload=offload,
            computes=computes,
            waits=waits,
            delays=delays,
            idempotent=idempotent,
            deterministic=deterministic,
        )
        function.__flow_node__ = definition  # pyright: ignore[reportFunctionMemberAccess] - functions carry attributes
        return function

    return declare


def _policies(type_name: str, given: PolicyFields) -> NodePolicies:
    findings = Findings()
    read = read_declared(NodePolicies, dict(given), (), findings)
    findings.raise_if_any(f"node {type_name!r}")
    return NO_POLICIES if isinstance(read, msgspec.UnsetType) else read


def _define_function(  # noqa: PLR0913 - what `node` was given
    function: Callable[..., Any],
    type_name: str,
    kind: NodeKind | None,
    category: str | None,
    policies: NodePolicies,
    *,
    offload: Offload | None,
    computes: str | None,
    waits: bool,
    delays: str | None,
    idempotent: bool,
    deterministic: bool,
) -> NodeDefinition:
    check_type_name(type_name, function)
    check_function(type_name, function, "node")
    _check_choice(type_name, "kind", kind, _FUNCTION_KINDS)
    _check_choice(type_name, "offload", offload, get_args(Offload))
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
        is_async=_is_async(function, returns),
        is_class=False,
        structured_output=structured,
        batched=batched,
        offload=offload,
        context=context,
        context_name=context_name,
        computes=computes,
        waits=waits,
        delays=delays,
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

    def __init_subclass__(
        cls,
        *,
        type: str | None = None,
        kind: NodeKind = "map",
        category: str | None = None,
        waits: bool = False,
        idempotent: bool = True,
        deterministic: bool = False,
        exclusive_outputs: bool = False,
        **policies: Unpack[PolicyFields],
    ) -> None:
        super().__init_subclass__()
        if type is None:
            return
        cls.__flow_node__ = _define_class(
            cls,
            type,
            kind,
            category,
            _policies(type, policies),
            waits=waits,
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


def _define_class(  # noqa: PLR0913 - what `Node` was given
    cls: type[Node[Any, Any, Any]],
    type_name: str,
    kind: NodeKind,
    category: str | None,
    policies: NodePolicies,
    *,
    waits: bool,
    idempotent: bool,
    deterministic: bool,
    exclusive: bool,
) -> NodeDefinition:
    check_type_name(type_name, cls)
    _check_choice(type_name, "kind", kind, _CLASS_KINDS)
    if cls.execute is Node[Any, Any, Any].execute:
        raise DefinitionError(
            f"node {type_name!r} ({cls.__qualname__}) has no execute method; define it: "
            "async def execute(self, inputs, ctx)",
            type=type_name,
        )
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
        is_async=_is_async(execute, resolve_annotations(execute).get("return", Any)),
        is_class=True,
        input_type=in_type,
        structured_output=structured,
        outputs_of=cls.outputs_for if overrides_outputs else None,
        exclusive_outputs=exclusive,
        context="node",
        context_name="ctx",
        waits=waits,
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


def _is_async(function: Callable[..., Any], returns: Any) -> bool:
    """Whether what it gives has to be awaited, by its kind of function or by what it says it returns."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    return get_origin(returns) in _ASYNC_ITERATORS or returns in _ASYNC_ITERATORS


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
    if definition.kind in ("expand", "collect", "batch"):
        _check_changes_rows(definition, name)
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
    if definition.offload is not None:
        _check_offloaded_streams(definition, name)
    _check_waits(definition, name)
    _check_delays(definition, name)
    if definition.computes is not None and not _has_field(definition, definition.computes):
        raise DefinitionError(
            f"{name} computes {definition.computes!r}, which is not one of its configuration fields",
            type=definition.type,
        )


def _has_field(definition: NodeDefinition, name: str) -> bool:
    return definition.config_type is not None and name in definition.config_type.__struct_fields__


def _check_waits(definition: NodeDefinition, name: str) -> None:
    """Only one call for one row can be put off until there is an answer.

    Raises:
        DefinitionError: with the remedy.
    """
    if not definition.waits:
        return
    fault = ""
    if definition.kind not in ("map", "filter"):
        fault = f"is of kind {definition.kind!r}: wait in a node before or after it"
    elif definition.batched:
        fault = "works on batches, whose rows do not wait together; leave batch out"
    elif not definition.is_async:
        fault = "is no coroutine; write it as 'async def'"
    elif definition.context != "node":
        fault = "takes no NodeContext, and so cannot call ctx.wait; add the parameter 'ctx: NodeContext'"
    if fault:
        raise DefinitionError(f"{name} says waits=True, and {fault}", type=definition.type)


def _check_delays(definition: NodeDefinition, name: str) -> None:
    """Only one call for one row can be put off until its time has come.

    Raises:
        DefinitionError: with the remedy.
    """
    field = definition.delays
    if field is None:
        return
    fault = ""
    if not _has_field(definition, field):
        fault = "which is not one of its configuration fields"
    elif definition.waits:
        fault = "and waits=True: let it do one of the two"
    elif definition.kind not in ("map", "filter") or definition.batched or not definition.is_async:
        fault = "and is no coroutine for one row; make it one"
    elif definition.context != "node":
        fault = "and takes no NodeContext, whose sleep is what is put off; add a parameter ctx: NodeContext"
    if fault:
        raise DefinitionError(f"{name} says delays={field!r}, {fault}", type=definition.type)


def _check_offloaded_streams(definition: NodeDefinition, name: str) -> None:
    """A stream lives on the event loop: a thread may make one and pass it on, a process neither.

    Raises:
        DefinitionError: a port says otherwise.
    """
    inputs = [port.name for port in definition.inputs if is_stream(port.annotation)]
    if inputs:
        raise DefinitionError(
            f"{name} runs in a {definition.offload} and takes a Stream at {inputs[0]!r}, which only a "
            "coroutine can read; make it a coroutine, or put stream.collect before it",
            type=definition.type,
        )
    if definition.offload == "process" and any(is_stream(port.annotation) for port in definition.outputs):
        raise DefinitionError(
            f"{name} runs in a process and returns a Stream, which cannot cross; make it a coroutine, or "
            "return a list",
            type=definition.type,
        )


def _check_changes_rows(definition: NodeDefinition, name: str) -> None:
    """Refuse ways to write a node that changes the number of rows which nothing would carry out.

    Raises:
        DefinitionError: with the remedy.
    """
    kind, function = definition.kind, definition.implementation
    fault = ""
    if definition.offload is not None:
        fault = (
            f"cannot be offloaded to a {definition.offload}; offload the work to a node before or after it"
        )
    elif kind == "expand":
        function = function.execute if definition.is_class else function
        if inspect.iscoroutinefunction(function):
            fault = "is a coroutine that gives an iterator; write it with yield, as an asynchronous generator"
    elif definition.is_async:
        fault = "is a coroutine, and nothing would await it; write a plain function"
    elif definition.context is not None:
        fault = "takes a context, but its rows stem from several calls; remove it"
    if fault:
        raise DefinitionError(f"{name} is of kind {kind!r}: it {fault}", type=definition.type)


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


def _check_choice(type_name: str, option: str, given: str | None, known: Iterable[str]) -> None:
    if given is not None and given not in known:
        raise DefinitionError(
            f"node {type_name!r}: {option}={given!r} is not one of {', '.join(sorted(known))}", type=type_name
        )


def definition_of(thing: object) -> NodeDefinition | None:
    """The definition a decorated function or Node class carries; None when it is neither."""
    found = getattr(thing, "__flow_node__", None)
    return found if isinstance(found, NodeDefinition) else None


NodeMetadata = Mapping[str, Any]
