"""What is known of a node, operator, source or sink before it runs: ports, configuration, kind, policies.

Owns: `Port`, `NodeDefinition`, `ConnectorDefinition`, `Gather`, and reading them from signatures.
Does not own: the decorators users write (flowcore.node, flowcore.operator, flowcore.connector), type rules
between
ports (flowcore.assignable).

Always holds: a definition is made from the signature and the docstring alone; nothing is registered by
making one.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from flowcore.errors import DefinitionError
from flowcore.policies import NodePolicies

T = TypeVar("T")

NodeKind = Literal["map", "filter", "expand", "collect", "merge", "batch", "operator"]
Offload = Literal["thread", "process"]
ContextKind = Literal["node", "batch"]

NODE_KINDS: Final = frozenset(get_args(NodeKind))


class _GatherMark:
    def __repr__(self) -> str:
        return "GATHER"


GATHER: Final = _GatherMark()
Gather = Annotated[list[T], GATHER]
"""A port that takes all its connections as one list, in order of declaration."""


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """One way in or out of a node."""

    name: str
    annotation: Any = Any
    """The Python type; `Any` when there is none or it cannot be resolved."""
    required: bool = True
    default: Any = msgspec.UNSET
    gather: bool = False
    description: str = ""


class NodeDefinition(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A node type: how the compiler sees it. `implementation` is the function or class the user wrote."""

    type: str
    kind: NodeKind
    implementation: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    config_type: type[msgspec.Struct] | None
    policies: NodePolicies
    is_async: bool
    is_class: bool
    input_type: Any = None
    """For class nodes: the struct `execute` takes its inputs in."""
    structured_output: bool = False
    """The result is a struct with one field per output port; an UNSET field emits nothing."""
    outputs_of: Callable[[Mapping[str, Any]], tuple[Port, ...]] | None = None
    """For nodes whose output ports follow from their configuration: its raw mapping -> the ports
    (`control.switch`).
    Ask `for_config` rather than calling it; never raises, whatever the configuration holds."""
    exclusive_outputs: bool = False
    """At most one output port has a value for a row, so that its branches may meet again without a new
    scope."""
    batched: bool = False
    """Called with one sequence per input port instead of one value."""
    offload: Offload | None = None
    context: ContextKind | None = None
    context_name: str | None = None
    computes: str | None = None
    """Name of a config field of type Expression or Template whose value is the node's whole result: such a
    node is
    compiled into the fused function."""
    settles: Literal["on_entry", "explicit"] | None = None
    """For operators: when an input row is answered for."""
    waits: bool = False
    """It may call `ctx.wait`: its executions are kept, call by call, so that they survive the wait."""
    delays: str | None = None
    """The config field that says how long a row waits in `ctx.sleep`; what is longer than `max_hold` is
    stored in continuous runs, and the row comes back."""
    idempotent: bool = True
    deterministic: bool = False
    category: str = ""
    description: str = ""

    @property
    def location(self) -> str:
        """`module:qualname`, as worker processes find it."""
        return f"{self.implementation.__module__}:{self.implementation.__qualname__}"

    def for_config(self, raw: Mapping[str, Any]) -> NodeDefinition:
        """The definition with the output ports of this configuration; itself where they are fixed."""
        return (
            self if self.outputs_of is None else msgspec.structs.replace(self, outputs=self.outputs_of(raw))
        )

    def input(self, name: str) -> Port | None:
        return next((port for port in self.inputs if port.name == name), None)

    def output(self, name: str) -> Port | None:
        return next((port for port in self.outputs if port.name == name), None)


class ConnectorDefinition(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A source or sink type. A source has the output port `out`, a sink the input port `value`."""

    type: str
    role: Literal["source", "sink"]
    implementation: Any
    config_type: Any
    row_type: Any = Any
    push: bool = False
    category: str = ""
    description: str = ""

    @classmethod
    def of(
        cls,
        implementation: Any,
        *,
        type: str,
        role: Literal["source", "sink"],
        config_type: Any,
        row_type: Any,
        push: bool,
    ) -> ConnectorDefinition:
        check_type_name(type, implementation)
        return cls(
            type=type,
            role=role,
            implementation=implementation,
            config_type=config_type if inspect.isclass(config_type) else None,
            row_type=row_type,
            push=push,
            category=type.partition(".")[0],
            description=inspect.getdoc(implementation) or "",
        )

    @property
    def inputs(self) -> tuple[Port, ...]:
        return (Port(name="value", annotation=self.row_type),) if self.role == "sink" else ()

    @property
    def outputs(self) -> tuple[Port, ...]:
        return (Port(name="out", annotation=self.row_type),) if self.role == "source" else ()

    def input(self, name: str) -> Port | None:
        return next((port for port in self.inputs if port.name == name), None)

    def output(self, name: str) -> Port | None:
        return next((port for port in self.outputs if port.name == name), None)


Definition = NodeDefinition | ConnectorDefinition


def check_type_name(type_name: str, where: object) -> None:
    """Type names are dotted lower-case words: `text.clean`, `kafka.source`.

    Raises:
        DefinitionError: anything else.
    """
    if not isinstance(type_name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - of code nobody has checked
        raise DefinitionError(f"a node type is a dotted name such as 'text.clean', not {type_name!r}")
    parts = type_name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise DefinitionError(
            f"node type {type_name!r} of {where!r} is not a dotted name; write it like 'text.clean'",
            type=type_name,
        )


def check_function(type_name: str, function: object, what: str) -> None:
    """What is declared must be a function that can carry its definition.

    Raises:
        DefinitionError: a class, a bound method, a built-in or anything else; with what to write instead.
    """
    if isinstance(function, type):
        raise DefinitionError(
            f"{what} {type_name!r}: {function.__qualname__} is a class; decorate a function, or derive the "
            f"class: class {function.__name__}(Node[Config, In, Out], type={type_name!r})",
            type=type_name,
        )
    carries = hasattr(function, "__name__") and hasattr(function, "__dict__")
    if not callable(function) or not carries or inspect.ismethod(function):
        raise DefinitionError(
            f"{what} {type_name!r}: {function!r:.200} is no function of its own; write a def that calls it, "
            "and decorate that",
            type=type_name,
        )


def type_arguments(cls: type, base: type) -> tuple[Any, ...]:
    """The arguments `cls` gives `base`: `class X(Base[A, B])` -> (A, B); Any where none are given."""
    parameters = len(getattr(base, "__parameters__", ()))
    for klass in cls.__mro__:
        for original in getattr(klass, "__orig_bases__", ()):
            if get_origin(original) is base:
                found = get_args(original)
                return tuple(Any if isinstance(argument, TypeVar) else argument for argument in found)
    return (Any,) * parameters


def resolve_annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by parameter name, each resolved on its own.

    A name that exists only for type checkers cannot be resolved; the annotation is then kept as its text.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - text of users; what cannot be resolved is looked at one by one
        found: dict[str, Any] = {}
    namespace: Mapping[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    for name, raw in inspect.get_annotations(function).items():
        if not isinstance(raw, str):
            found[name] = raw
            continue
        try:
            found[name] = eval(raw, dict(namespace))  # noqa: S307 - an annotation of the user's own module
        except Exception:  # noqa: BLE001 - as above
            found[name] = raw
    return found


def port_of(name: str, annotation: Any, default: Any, description: str = "") -> Port:
    """An input port from a parameter or a struct field."""
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    gather = any(mark is GATHER for mark in metadata)
    required = default is inspect.Parameter.empty or default is msgspec.NODEFAULT
    return Port(
        name=name,
        annotation=Any if isinstance(annotation, str) else annotation,
        required=required,
        default=msgspec.UNSET if required else default,
        gather=gather,
        description=description,
    )


def ports_of_struct(struct: type[msgspec.Struct]) -> tuple[Port, ...]:
    """One port per field."""
    return tuple(
        port_of(
            field.name,
            field.type,
            field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default,
        )
        for field in msgspec.structs.fields(struct)
    )
