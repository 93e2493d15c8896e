"""Code generation: one Python function per fused stage and frame.

Owns: the source text of the lean function (streams) and of the recording one (requests, watched streams),
and what the operator needs to know of its outputs.
Does not own: what is computed in which order (steps), the text of a value (values), calling the function,
covering rows, policies (flowruntime.operators.fused).

Shape of a generated function:

    def stage(values, rows, at):          # at: what it asks of the frame, see `At`
        for i, v in enumerate(values) if rows is None else zip(rows, values):
            try: ...one line per node...
            except BaseException as e: at.note(i, ITEM, e); continue
            out0(value); ...
        return [(values0, rows0), ...], (counter, ...)

Always holds: a row's exception is noted and never leaves the function; a row that later items do not need
any more is left by `continue`, else its value becomes ABSENT (dropped) or FAILED (a failure stands behind
it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowcore.errors import EngineError
from flowruntime.compile.plan import Argument, Call, Coalesce, Collected, Given, Stage, Wire
from flowruntime.compile.resolved import ResolvedConnection
from flowruntime.compile.sentinels import ABSENT
from flowruntime.compile.steps import Output, Step, Steps, Tally, identifier
from flowruntime.compile.straight import qualifies, write_straight
from flowruntime.compile.values import Values
from flowruntime.compile.writer import Writer


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused stage, written."""

    stage: Stage
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    lean: str
    recording: str
    constants: Mapping[str, Any]
    """Globals of the code but for the node instances, which a worker binds under `call_names`."""
    call_names: Mapping[int, str]
    """Step index -> global name of the callable."""
    lean_lines: Mapping[int, int]
    """For the fast form of straight stages: the step behind each line of `lean`; empty for all others.
    Its function lists the rows that are gone instead of those that stay."""
    tallies: tuple[Tally, ...]
    """What the function counts; its last result is a tuple with one integer per entry."""

    derived: tuple[tuple[Step, tuple[int, ...]], ...]
    """Nodes whose count follows from the frame's size: each with the tallies to take away from it."""
    values: Values
    """For the dead letter of a row: what a step was given, asked of the function's own variables."""


def fuse(stage: Stage) -> Fused:
    """Write the functions of one fused stage."""
    return _Fuser(stage).write()


class _Fuser:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.steps = Steps(stage)
        self.values = Values(self.steps)

    def write(self) -> Fused:
        lean, lines = self._lean()
        return Fused(
            stage=self.stage,
            steps=tuple(self.steps.all),
            outputs=tuple(self.steps.outputs),
            lean=lean,
            lean_lines=lines,
            recording=self._function(recording=True),
            constants=self.values.constants,
            call_names=self.values.call_names,
            tallies=tuple(self.steps.tallies),
            derived=tuple(self.steps.derived),
            values=self.values,
        )

    def _lean(self) -> tuple[str, dict[int, int]]:
        """The function of streams: the fast form where the stage is one straight line."""
        whole = all(tally.what != "completed" for tally in self.steps.tallies) and not any(
            step.connection is not None
            and (self.steps.is_structured(step.connection) or self._port_tests(step.connection))
            for step in self.steps.all
        )
        if not whole or not qualifies(self.steps.all, self.steps.outputs, self.steps.straight_steps):
            return self._function(recording=False), {}
        names = sorted(
            self.values.call_names[step.index] for step in self.steps.all if self.values.is_called(step)
        )

        def expression(step: Step) -> str:
            if step.connection is not None:
                return self.values.carried(step.connection)
            call = _call_of(step)
            text = self.values.expression(step, call)
            name = self.values.call_names[step.index]
            text = f"{name}_{text.removeprefix(name)}" if name in names else text
            return text if call.node.role == "filter" else self.values.bounded(step, call, text)

        def passed(step: Step) -> str:
            call = _call_of(step)
            return self.values.bounded(step, call, self.values.argument(step, call, 0))

        def condition(step: Step) -> str:
            connection = step.connection
            if connection is None or connection.when is None:
                return ""
            return f"({self.values.condition(connection.when, self.values.base(connection))})"

        return write_straight(
            identifier(self.stage.id),
            self.steps.all,
            self.steps.tallies,
            [self.values.read(output.out.arguments[0]) for output in self.steps.outputs],
            expression=expression,
            condition=condition,
            passed=passed,
            locals_=names,
        )

    def _function(self, *, recording: bool) -> str:
        writer = Writer()
        name = identifier(self.stage.id)
        writer.line(f"def stage_{name}(values, rows, at):")
        with writer.indented():
            writer.line("note = at.note")
            if recording:
                writer.line("start = at.start; done = at.done")
            for index, output in enumerate(self.steps.outputs):
                if output.error_of is not None:
                    continue
                writer.line(f"values{index} = []; out{index} = values{index}.append")
                if output.may_drop:
                    writer.line(f"rows{index} = []; row{index} = rows{index}.append")
            for tally in self.steps.tallies:
                writer.line(f"{tally.variable} = 0")
            writer.line("for i, v in enumerate(values) if rows is None else zip(rows, values):")
            with writer.indented():
                self._write_row(writer, recording=recording)
            pairs = [
                "None" if output.error_of is not None
                else f"(values{index}, {f'rows{index}' if output.may_drop else 'None'})"
                for index, output in enumerate(self.steps.outputs)
            ]  # fmt: skip
            tallies = ", ".join(tally.variable for tally in self.steps.tallies)
            writer.line(
                f"return [{', '.join(pairs)}], ({tallies}{',' if len(self.steps.tallies) == 1 else ''})"
            )
        return writer.text()

    def _write_row(self, writer: Writer, *, recording: bool) -> None:
        """The body of the loop."""
        if not self.steps.all and all(output.error_of is not None for output in self.steps.outputs):
            writer.line("pass")
        for step in self.steps.all:
            if step.call is not None:
                self._write_call(writer, step, step.call, recording=recording)
            elif step.connection is not None:
                self._write_wire(writer, step, step.connection)
        for index, output in enumerate(self.steps.outputs):
            if output.error_of is None:
                self._write_out(writer, index, output)

    def _guard(self, writer: Writer, step: Step) -> bool:
        """Write the test whether what the step needs is there; True when an `else:` block is open."""
        direct = self.steps.direct(step)
        unsure = [self.steps.all[index].variable for index in direct if not self.steps.straight(index)]
        if not unsure:
            return False
        failed = " or ".join(f"{variable} is FAILED" for variable in unsure)
        absent = " or ".join(f"{variable} is ABSENT" for variable in unsure)
        writer.line(f"if {failed}: {self._leave(step, 'FAILED')}")
        writer.line(f"elif {absent}: {self._leave(step, 'ABSENT')}")
        writer.line("else:")
        return True

    def _leave(self, step: Step, mark: str) -> str:
        """What to do with a row a step has no value for: leave it, or go on for the sake of others."""
        return "continue" if self.steps.straight(step.index) else f"{step.variable} = {mark}"

    def _write_call(self, writer: Writer, step: Step, call: Call, *, recording: bool) -> None:
        writer.line(f"# {call.node.id}: {call.node.definition.type}")
        guarded = self._guard(writer, step)
        with writer.indented(guarded):
            gathers = self._write_gathers(writer, step, call)
            with writer.indented(gathers):
                if call.node.role == "source":
                    self._write_given(writer, step, call, recording=recording)
                else:
                    self._write_body(writer, step, call, recording=recording)

    def _write_gathers(self, writer: Writer, step: Step, call: Call) -> bool:
        """Arguments made of several values that may be missing; True when an `else:` block is open."""
        failing: list[str] = []
        needed: list[str] = []
        for position, argument in enumerate(call.arguments):
            if isinstance(argument, Coalesce | Collected):
                name = f"{step.variable}_in{position}"
                test = self._write_list(writer, name, argument)
                if test is not None:
                    failing.append(test)
                    needed.append(f"not {name}")
        if not failing:
            return False
        writer.line(f"if {' or '.join(failing)}: {self._leave(step, 'FAILED')}")
        writer.line(f"elif {' or '.join(needed)}: {self._leave(step, 'ABSENT')}")
        writer.line("else:")
        return True

    def _write_list(self, writer: Writer, name: str, argument: Coalesce | Collected) -> str | None:
        """Write the values that are there; the test whether a failure keeps the row away, None: none can.

        Of exclusive branches the value counts, whatever failed on the way of the others; a gathered list is
        not whole when one has failed.

        Args:
            writer: takes the line.
            name: of the list.
            argument: whose values they are.
        """
        one = isinstance(argument, Coalesce)
        parts = argument.wires if isinstance(argument, Coalesce) else argument.parts
        sources = ", ".join(self.values.read(part) for part in parts)
        if all(self._is_there(part) for part in parts):
            writer.line(f"{name} = [{sources}]")
            return None
        if not one:
            writer.line(f"{name} = [x for x in ({sources},) if x is not ABSENT]")
            return f"any(x is FAILED for x in {name})"
        writer.line(f"{name}_all = [x for x in ({sources},) if x is not ABSENT]")
        writer.line(f"{name} = [x for x in {name}_all if x is not FAILED]")
        return f"({name}_all and not {name})"

    def _is_there(self, part: Argument) -> bool:
        """Whether a row that has come this far has this value."""
        if not isinstance(part, Wire):
            return False
        source = self.steps.source_of(part.connection)
        return source is None or self.steps.straight(source)

    def _write_given(self, writer: Writer, step: Step, call: Call, *, recording: bool) -> None:
        """A source in a request: its value is one of the request's inputs."""
        given = call.arguments[0]
        if not isinstance(given, Given):
            raise EngineError(f"source {call.node.id!r} in a request reads {given!r}, not an input")
        there = f"{step.variable} is not ABSENT"
        writer.line(f"{step.variable} = v.get({given.name!r}, ABSENT)")
        completed = self.steps.tally(step.index, "completed")
        if completed:
            writer.line(f"if {there}: {completed.variable} += 1")
        if recording:
            writer.line(f"if {there}: done(i, {step.index}, {step.variable}, start(i, {step.index}))")
        if self.steps.straight(step.index):
            writer.line(f"if {step.variable} is ABSENT: continue")

    def _write_body(self, writer: Writer, step: Step, call: Call, *, recording: bool) -> None:
        straight = self.steps.straight(step.index)
        if recording:
            writer.line(f"t = start(i, {step.index})")
        writer.line("try:")
        with writer.indented():
            self._write_value(writer, step, call)
        writer.line("except BaseException as e:")
        replaced = call.node.fallback is not None
        started = ", t" if recording else ""
        with writer.indented():
            if replaced:
                writer.line(f"{step.variable} = at.replace(i, {step.index}, e{started})")
            else:
                writer.line(f"note(i, {step.index}, e{started})")
                writer.line("continue" if straight else f"{step.variable} = FAILED")
        self._write_done(writer, step, call, recording=recording)
        unconnected = self.steps.unconnected.get(step.index)
        if unconnected and replaced:  # the fallback goes one of its ways, too
            self._write_unconnected(writer, step, unconnected)

    def _write_done(self, writer: Writer, step: Step, call: Call, *, recording: bool) -> None:
        """What follows when the node has not failed."""
        straight, replaced = self.steps.straight(step.index), call.node.fallback is not None
        is_filter = call.node.role == "filter"
        completed = self.steps.tally(step.index, "completed")
        unconnected = self.steps.unconnected.get(step.index)
        if not (is_filter or recording or completed or unconnected):
            return
        opened = not straight or replaced
        if opened:
            writer.line("else:")
        with writer.indented(opened):
            if completed:
                writer.line(f"{completed.variable} += 1")
            if is_filter:
                self._write_filter(writer, step, call, leave=straight and not recording)
            if unconnected and not replaced:
                self._write_unconnected(writer, step, unconnected)
            if recording:
                writer.line(f"done(i, {step.index}, {step.variable}, t)")
                if is_filter and straight:
                    writer.line(f"if {step.variable} is ABSENT: continue")

    def _write_unconnected(self, writer: Writer, step: Step, ports: Sequence[str]) -> None:
        """Count a row that goes a way where nothing is connected."""
        given = " or ".join(f"{step.variable}.{port} is not at.unset" for port in ports)
        writer.line(f"if {given}: {Tally(step.index, step.name, 'unrouted').variable} += 1")

    def _write_value(self, writer: Writer, step: Step, call: Call) -> None:
        """The variable holds what the node gave, of a filter whether it drops; within the node's bound."""
        expression = self.values.expression(step, call)
        if call.node.role != "filter":
            writer.line(f"{step.variable} = {self.values.bounded(step, call, expression)}")
            return
        # A filter's verdict is asked for its truth here, where it may raise.
        writer.line(f"{step.variable} = not ({expression})")
        passed = self.values.argument(step, call, 0)
        bounded = self.values.bounded(step, call, passed)
        if bounded != passed:  # a filter's output is what it lets through
            writer.line(f"if not {step.variable}: {bounded}")

    def _write_filter(self, writer: Writer, step: Step, call: Call, *, leave: bool) -> None:
        """The variable says whether the row is dropped; put the value that passes in its place."""
        dropped = self.steps.tally(step.index, "dropped")
        writer.line(f"if {step.variable}:")
        with writer.indented():
            if dropped is not None:
                writer.line(f"{dropped.variable} += 1")
            writer.line("continue" if leave else f"{step.variable} = ABSENT")
        passed = self.values.argument(step, call, 0)
        if leave:
            writer.line(f"{step.variable} = {passed}")
        else:
            writer.line(f"else: {step.variable} = {passed}")

    def _write_wire(self, writer: Writer, step: Step, connection: ResolvedConnection) -> None:
        writer.line(f"# {connection.from_node}.{connection.from_port} -> {connection.to_node}")
        guarded = self._guard(writer, step)
        straight = self.steps.straight(step.index)
        with writer.indented(guarded):
            writer.line("try:")
            with writer.indented():
                self._write_wire_value(writer, step, connection)
            writer.line("except Exception as e:")
            with writer.indented():
                if connection.when_error:
                    writer.line(f"note(i, {step.index}, e)")
                    writer.line("continue" if straight else f"{step.variable} = FAILED")
                else:
                    writer.line(f"{step.variable} = ABSENT")
            if straight and self.steps.may_drop(step.index):
                writer.line(f"if {step.variable} is ABSENT:")
                with writer.indented():
                    self._write_unrouted(writer, step, connection, left=True)
                    writer.line("continue")
        if not straight:
            self._write_unrouted(writer, step, connection, left=False)

    def _write_unrouted(
        self, writer: Writer, step: Step, connection: ResolvedConnection, *, left: bool
    ) -> None:
        """Count a row no branch of the port takes; written behind the last branch.

        Args:
            writer: takes the line.
            step: the branch behind which it is written.
            connection: that branch.
            left: where the branch of this step is known not to be taken.
        """
        tally = self.steps.tally(step.index, "unrouted")
        if tally is None:
            return
        tests = self._port_tests(connection)
        for index in self.steps.branches()[connection.from_node, connection.from_port]:
            if not (left and index == step.index):
                tests.append(f"{self.steps.all[index].variable} is ABSENT")
        if tests:
            writer.line(f"if {' and '.join(tests)}: {tally.variable} += 1")
        else:
            writer.line(f"{tally.variable} += 1")

    def _port_tests(self, connection: ResolvedConnection) -> list[str]:
        """What must hold for the sending port to have a value at all."""
        sender = self.steps.by_node.get(connection.from_node)
        base = "v" if sender is None else self.steps.all[sender].variable
        tests: list[str] = []
        if sender is not None and not self.steps.straight(sender):
            tests.append(f"{base} is not ABSENT and {base} is not FAILED")
        if self.steps.is_structured(connection):
            tests.append(f"{base}.{connection.from_port} is not at.unset")
        return tests

    def _write_wire_value(self, writer: Writer, step: Step, connection: ResolvedConnection) -> None:
        sender = self.steps.by_node.get(connection.from_node)
        base = "v" if sender is None else self.steps.all[sender].variable
        if self.steps.is_structured(connection):
            writer.line(f"{step.variable} = {base}.{connection.from_port}")
            writer.line(f"if {step.variable} is at.unset: {step.variable} = ABSENT")
            if connection.when is None and not connection.path and not connection.otherwise:
                return
            writer.line(f"if {step.variable} is not ABSENT:")
            with writer.indented():
                self._write_condition(writer, step, connection, step.variable)
            return
        self._write_condition(writer, step, connection, base)

    def _write_condition(self, writer: Writer, step: Step, connection: ResolvedConnection, base: str) -> None:
        value = self.values.field(base, connection)
        if connection.when is not None:
            condition = self.values.condition(connection.when, base)
            writer.line(f"{step.variable} = {value} if {condition} else ABSENT")
        elif connection.otherwise:
            siblings = [self.steps.all[index].variable for index in self.steps.else_of[step.index]]
            tests = " and ".join(f"{variable} is ABSENT" for variable in siblings) or "True"
            failed = " or ".join(f"{variable} is FAILED" for variable in siblings) or "False"
            writer.line(f"{step.variable} = {value} if {tests} else FAILED if {failed} else ABSENT")
        else:
            writer.line(f"{step.variable} = {value}")

    def _write_out(self, writer: Writer, index: int, output: Output) -> None:
        arguments = [*output.out.arguments, *output.out.controls]
        unsure = [
            self.steps.all[source].variable
            for argument in arguments
            if isinstance(argument, Wire)
            and (source := self.steps.source_of(argument.connection)) is not None
            and not self.steps.straight(source)
        ]
        values: list[str] = []
        checks = [
            f"{variable} is not ABSENT and {variable} is not FAILED" for variable in dict.fromkeys(unsure)
        ]
        for position, argument in enumerate(output.out.arguments):
            name = f"o{index}_{position}"
            if isinstance(argument, Given):
                default = self.values.constant(argument.default if not argument.required else ABSENT)
                writer.line(f"{name} = v.get({argument.name!r}, {default})")
                if argument.required:
                    checks.append(f"{name} is not ABSENT")
                values.append(name)
            elif isinstance(argument, Coalesce | Collected):
                failing = self._write_list(writer, name, argument)
                if failing is not None:
                    checks += [f"not {failing}", name]
                values.append(f"{name}[0]" if isinstance(argument, Coalesce) else name)
            else:
                values.append(self.values.read(argument))
        value = values[0] if output.out.single else f"({', '.join(values)}{',' if len(values) == 1 else ''})"
        if checks:
            writer.line(f"if {' and '.join(checks)}:")
        with writer.indented(bool(checks)):
            writer.line(f"out{index}({value})")
            if output.may_drop:
                writer.line(f"row{index}(i)")


def _call_of(step: Step) -> Call:
    """The call of a step that is no connection."""
    if step.call is None:
        raise EngineError(f"step {step.variable!r} is a connection, which calls nothing")
    return step.call
