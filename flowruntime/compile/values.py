"""The values of a generated function as Python expressions.

Owns: the text of an argument, a node's call, a condition, and the globals those texts name.
Does not own: statements around them (fuse, straight).

Always holds: no value of a user becomes source text; each is bound as a global.
"""

from __future__ import annotations

from typing import Any

from flowcore.errors import EngineError
from flowruntime.compile.bounds import output_bound_of
from flowruntime.compile.expressions.api import CompiledExpression
from flowruntime.compile.plan import Argument, Call, Coalesce, Collected, Const, Given, Item, Wire
from flowruntime.compile.resolved import ResolvedConnection
from flowruntime.compile.sentinels import ABSENT, FAILED
from flowruntime.compile.steps import Step, Steps, identifier
from flowruntime.operators.oversize import OutputBound


class Values:
    """The expressions of one stage."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.constants: dict[str, Any] = {"ABSENT": ABSENT, "FAILED": FAILED}
        """Globals of the function but for the node instances."""
        self.call_names = {
            step.index: f"node_{identifier(step.name)}" for step in steps.all if step.call is not None
        }
        """By step: the global a worker binds its callable to."""

    # --- connections ----------------------------------------------------------------------------------

    def base(self, connection: ResolvedConnection) -> str:
        """What its sender answered."""
        sender = self.steps.by_node.get(connection.from_node)
        return "v" if sender is None else self.steps.all[sender].variable

    def carried(self, connection: ResolvedConnection) -> str:
        """What it carries, its path followed."""
        return self.field(self.base(connection), connection)

    def field(self, base: str, connection: ResolvedConnection) -> str:
        """The part of `base` its path leads to."""
        for part in connection.path:
            base = f"at.field({base}, {part!r})"
        return base

    def condition(self, when: CompiledExpression, base: str) -> str:
        """Its `when`, asked of `base`."""
        self.constants.update(when.bindings)
        names = {"value": base, "key": "at.key(i)", "headers": "at.headers(i)", "record": "at.record(i)"}
        return when.source(names)

    # --- nodes ----------------------------------------------------------------------------------------

    def read(self, argument: Argument) -> str:
        """An argument that is one value."""
        if isinstance(argument, Wire):
            if argument.connection.kind == "error":
                raise EngineError("an error edge was read as a value")
            source = self.steps.source_of(argument.connection)
            return "v" if source is None else self.steps.all[source].variable
        if isinstance(argument, Item):
            return "v" if argument.index is None else f"v[{argument.index}]"
        if isinstance(argument, Const):
            return self.constant(argument.value)
        if isinstance(argument, Given):
            return f"v.get({argument.name!r}, {self.constant(argument.default)})"
        raise EngineError(f"{argument!r} has no single value")

    def given(self, step: Step) -> str:
        """What a step works on: its one argument, or a mapping of them by port; of a connection its base."""
        call = step.call
        if call is None:
            return "v" if step.connection is None else self.base(step.connection)
        if call.node.role == "source":
            return "v"
        arguments = [self.argument(step, call, position) for position in range(len(call.arguments))]
        if len(arguments) == 1:
            return arguments[0]
        named = zip(call.node.node.inputs, arguments, strict=True)
        return "{" + ", ".join(f"{port.name!r}: {text}" for port, text in named) + "}"

    def argument(self, step: Step, call: Call, position: int) -> str:
        """An argument of a node, gathered ones from the variable they were put in."""
        argument = call.arguments[position]
        if isinstance(argument, Coalesce):
            return f"{step.variable}_in{position}[0]"
        if isinstance(argument, Collected):
            return f"{step.variable}_in{position}"
        return self.read(argument)

    def expression(self, step: Step, call: Call) -> str:
        """The Python expression that computes the node."""
        definition = call.node.node
        arguments = [self.argument(step, call, position) for position in range(len(call.arguments))]
        compiled = self._compiled(call)
        if compiled is not None:
            self.constants.update(compiled.bindings)
            return compiled.source(
                {port.name: value for port, value in zip(definition.inputs, arguments, strict=True)}
            )
        name = self.call_names[step.index]
        if definition.is_class:
            fields = ", ".join(
                f"{port.name}={value}" for port, value in zip(definition.inputs, arguments, strict=True)
            )
            self.constants[f"{name}_In"] = definition.input_type
            return f"{name}({name}_In({fields}), at.context(i, {call.node.id!r}))"
        if definition.config_type is not None and call.node.config is not None:
            for field in definition.config_type.__struct_fields__:
                constant = f"{name}_{field}"
                self.constants[constant] = getattr(call.node.config, field)
                arguments.append(f"{field}={constant}")
        if definition.context_name is not None:
            arguments.append(f"{definition.context_name}=at.context(i, {call.node.id!r})")
        return f"{name}({', '.join(arguments)})"

    def bounded(self, step: Step, call: Call, text: str) -> str:
        """`text`, which raises when its value is larger than the node's bound; unchanged when it has none."""
        most = output_bound_of(call.node)
        if most is None:
            return text
        name = f"fits_{step.variable}"
        self.constants[name] = OutputBound(call.node.id, most).checked
        return f"{name}({text})"

    def _compiled(self, call: Call) -> Any:
        definition = call.node.node
        if definition.computes is None or call.node.config is None:
            return None
        return getattr(call.node.config, definition.computes).compiled

    def constant(self, value: object) -> str:
        """The name of a global that holds the value."""
        if value is None or value is True or value is False:
            return repr(value)
        if value is ABSENT:
            return "ABSENT"
        name = f"default_{len(self.constants)}"
        self.constants[name] = value
        return name

    def is_called(self, step: Step) -> bool:
        """A plain function call: not an expression compiled into the function, not a class node."""
        call = step.call
        return call is not None and not call.node.node.is_class and self._compiled(call) is None
