"""Code generation: one Python function per fused stage and frame.

Owns: the source text of the lean function (streams) and of the recording one (requests, watched streams),
    and what the
operator needs to know of its outputs.
Does not own: calling it, covering rows, policies (flowruntime.operators.fused).

Shape of a generated function:

    def stage(values, rows, at):          # at: what it asks of the frame, see `At`
        for i, v in enumerate(values) if rows is None else zip(rows, values):
            try: ...one line per node...
            except Exception as e: at.note(i, ITEM, e); continue
            out0(value); ...
        return [(values0, rows0), ...], (counter, ...)

Always holds: a row's exception is noted and never leaves the function; a row that later items do not need
any more is
left by `continue`, else its value becomes ABSENT (dropped) or FAILED (a failure stands behind it).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flowcore.errors import EngineError
from flowruntime.compile.plan import Argument, Call, Coalesce, Collected, Const, Given, Item, Out, Stage, Wire
from flowruntime.compile.resolved import ResolvedConnection
from flowruntime.compile.sentinels import ABSENT, FAILED
from flowruntime.compile.straight import qualifies, write_straight
from flowruntime.compile.writer import Writer


@dataclass(frozen=True, slots=True)
class Step:
    """One computation of a fused stage: a node, or a connection with a condition or a path."""

    index: int
    name: str
    """Node that fails when it raises: the node itself, or the receiver of the connection."""
    variable: str
    call: Call | None
    connection: ResolvedConnection | None
    needs: frozenset[int]
    """Steps without whose value this one does not run, transitively."""
    after: frozenset[int]
    """Steps it reads at all, transitively."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the operator must know of one out edge."""

    after: frozenset[int]
    """Steps a failure of which makes a row absent here."""
    error_of: str | None
    """For error edges: the node whose failed rows leave here."""
    may_drop: bool
    """Its rows are listed by the function; else they are the input's without the failed ones."""
    out: Out


@dataclass(frozen=True, slots=True)
class Tally:
    """A counter of the generated function."""

    step: int
    node: str
    """Whose count it is."""
    what: Literal["completed", "dropped", "unrouted"]

    @property
    def variable(self) -> str:
        return f"{self.what}_{self.step}"


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
    """For the fast form of straight stages: the step behind each line of `lean`; empty for all others. Its function
    lists the rows that are gone instead of those that stay."""
    tallies: tuple[Tally, ...]
    """What the function counts; its last result is a tuple with one integer per entry."""

    derived: tuple[tuple[Step, tuple[int, ...]], ...]
    """Nodes whose count follows from the frame's size: each with the tallies to take away from it."""


def fuse(stage: Stage) -> Fused:
    """Write the functions of one fused stage."""
    return _Fuser(stage).write()


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text)
    return f"{name}_" if keyword.iskeyword(name) else name


class _Fuser:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.steps: list[Step] = []
        self.constants: dict[str, Any] = {"ABSENT": ABSENT, "FAILED": FAILED}
        self.by_node: dict[str, int] = {}
        self.by_wire: dict[int, int] = {}
        self.call_names: dict[int, str] = {}
        self.else_of: dict[int, list[int]] = {}
        self.tallies: list[Tally] = []
        self._number_steps()
        self.derived: list[tuple[Step, tuple[int, ...]]] = []
        self.outputs: list[Output] = []
        self.outputs = [self._output(out) for out in stage.outs]
        self._straight_steps = self._find_straight()
        self._choose_tallies()

    # --- what is computed, and what needs what --------------------------------------------------------

    def _number_steps(self) -> None:
        wires = self._wires_by_sender()
        if self.stage.root is not None:
            for connection in wires.pop(self.stage.root.id, ()):
                self._wire_step(connection)
        for call in self.stage.calls:
            needs, after = self._reads([*call.arguments, *call.controls])
            index = self._step(
                call.node.id, f"{_identifier(call.node.id)}_{len(self.steps)}", call, None, needs, after
            )
            self.by_node[call.node.id] = index
            self.call_names[index] = f"node_{_identifier(call.node.id)}"
            for connection in wires.pop(call.node.id, ()):
                self._wire_step(connection)
        if wires:
            raise EngineError(f"stage {self.stage.id!r} reads nodes it does not run: {sorted(wires)}")

    def _choose_tallies(self) -> None:
        """Count only what the frame's size does not tell."""
        for step in self.steps:
            if step.call is not None and step.call.node.role == "filter":
                self.tallies.append(Tally(step.index, step.name, "dropped"))
        for steps in self._branches().values():
            sender = self.steps[steps[0]].connection
            if sender is not None:
                self.tallies.append(Tally(max(steps), sender.from_node, "unrouted"))
        for step in self.steps:
            if step.call is None:
                continue
            takers = self._takers(step)
            if takers is None:
                self.tallies.append(Tally(step.index, step.name, "completed"))
            else:
                self.derived.append((step, takers))

    def _takers(self, step: Step) -> tuple[int, ...] | None:
        """The tallies of rows that never reach a step; None when they cannot be told apart, and it counts by
        itself.
        """
        if self._may_drop(step.index) and step.call is not None and step.call.node.role != "filter":
            return None
        found: list[int] = []
        for index in sorted(step.after):
            if not self._may_drop(index):
                continue
            tally = self._tally(index, "dropped") or self._tally(index, "unrouted")
            connection = self.steps[index].connection
            structured = connection is not None and self._is_structured(connection)
            if tally is None or structured or not self._straight(index):
                return None
            if connection is not None and len(self._branches()[connection.from_node, connection.from_port]) > 1:
                return None  # a row this branch did not take may have gone another way
            found.append(self.tallies.index(tally))
        return tuple(found)

    def _branches(self) -> dict[tuple[str, str], list[int]]:
        """Conditional connections of one port that has no `else`, as steps."""
        groups: dict[tuple[str, str], list[int]] = {}
        closed: set[tuple[str, str]] = set()
        for step in self.steps:
            if step.connection is not None and (
                step.connection.when is not None or step.connection.otherwise
            ):
                port = (step.connection.from_node, step.connection.from_port)
                if step.connection.otherwise:
                    closed.add(port)
                groups.setdefault(port, []).append(step.index)
        return {port: steps for port, steps in groups.items() if port not in closed}

    def _tally(self, step: int, what: str) -> Tally | None:
        return next((tally for tally in self.tallies if tally.step == step and tally.what == what), None)

    def _wires_by_sender(self) -> dict[str, list[ResolvedConnection]]:
        """Connections read in this stage, by sender, plain ones included, in order of declaration."""
        found: dict[int, ResolvedConnection] = {}

        def visit(argument: Argument) -> None:
            if isinstance(argument, Wire):
                found[argument.connection.index] = argument.connection
            elif isinstance(argument, Coalesce):
                for wire in argument.wires:
                    visit(wire)
            elif isinstance(argument, Collected):
                for part in argument.parts:
                    visit(part)

        for call in self.stage.calls:
            for argument in (*call.arguments, *call.controls):
                visit(argument)
        for out in self.stage.outs:
            for argument in (*out.arguments, *out.controls):
                visit(argument)
        senders: dict[str, list[ResolvedConnection]] = {}
        for _, connection in sorted(found.items()):
            senders.setdefault(connection.from_node, []).append(connection)
        for connections in senders.values():
            connections.sort(
                key=lambda connection: connection.otherwise
            )  # `else` comes after what it excludes
        return senders

    def _wire_step(self, connection: ResolvedConnection) -> None:
        """A step for a connection that computes something; a plain one is the sender's variable itself."""
        sender = self.by_node.get(connection.from_node)
        if not (
            connection.when is not None
            or connection.otherwise
            or connection.path
            or self._is_structured(connection)
        ):
            return
        if connection.kind == "error":
            return
        base = frozenset[int]() if sender is None else self.steps[sender].needs | {sender}
        after = frozenset[int]() if sender is None else self.steps[sender].after | {sender}
        siblings: list[int] = []
        if connection.otherwise:
            siblings = [
                self.by_wire[index]
                for index, step in self.by_wire.items()
                if (other := self.steps[step].connection) is not None
                and other.from_node == connection.from_node
                and other.from_port == connection.from_port
                and other.when is not None
            ]
            after = after.union(siblings)
        variable = f"to_{_identifier(connection.to_node)}_{len(self.steps)}"
        index = self._step(connection.to_node, variable, None, connection, base, after)
        self.by_wire[connection.index] = index
        self.else_of[index] = siblings

    def _is_structured(self, connection: ResolvedConnection) -> bool:
        sender = self.by_node.get(connection.from_node)
        if sender is not None:
            call = self.steps[sender].call
            return call is not None and call.node.role != "source" and call.node.node.structured_output
        root = self.stage.root
        return root is not None and root.role not in ("source", "sink") and root.node.structured_output

    def _step(
        self,
        name: str,
        variable: str,
        call: Call | None,
        connection: ResolvedConnection | None,
        needs: frozenset[int],
        after: frozenset[int],
    ) -> int:
        index = len(self.steps)
        self.steps.append(Step(index, name, variable, call, connection, needs, after))
        return index

    def _source_of(self, connection: ResolvedConnection) -> int | None:
        """The step whose variable holds what the connection carries; None: the stage's input."""
        if connection.index in self.by_wire:
            return self.by_wire[connection.index]
        return self.by_node.get(connection.from_node)

    def _reads(self, arguments: list[Argument | Wire]) -> tuple[frozenset[int], frozenset[int]]:
        needs: set[int] = set()
        after: set[int] = set()
        for argument in arguments:
            if isinstance(argument, Wire) and argument.connection.kind != "error":
                step = self._source_of(argument.connection)
                if step is not None:
                    needs |= {step, *self.steps[step].needs}
                    after |= {step, *self.steps[step].after}
            elif isinstance(argument, Coalesce | Collected):
                parts = argument.wires if isinstance(argument, Coalesce) else argument.parts
                for part in parts:
                    _, below = self._reads([part])
                    after |= below
            elif isinstance(argument, Wire):
                step = self.by_node.get(argument.connection.from_node)
                if step is not None:
                    after |= self.steps[step].after
        return frozenset(needs), frozenset(after)

    def _output(self, out: Out) -> Output:
        _, after = self._reads([*out.arguments, *out.controls])
        error_of: str | None = None
        if len(out.arguments) == 1 and isinstance(out.arguments[0], Wire):
            connection = out.arguments[0].connection
            if connection.kind == "error":
                error_of = connection.from_node
        may_drop = any(self._may_drop(step) for step in after) or any(
            isinstance(argument, Given | Coalesce) for argument in out.arguments
        )
        return Output(after, error_of, may_drop, out)

    def _may_drop(self, index: int) -> bool:
        step = self.steps[index]
        if step.connection is not None:
            return (
                step.connection.when is not None
                or step.connection.otherwise
                or self._is_structured(step.connection)
            )
        assert step.call is not None
        return step.call.node.role in ("source", "filter") or any(
            isinstance(argument, Coalesce | Collected) for argument in step.call.arguments
        )

    # --- writing --------------------------------------------------------------------------------------

    def write(self) -> Fused:
        lean, lines = self._lean()
        return Fused(
            stage=self.stage,
            steps=tuple(self.steps),
            outputs=tuple(self.outputs),
            lean=lean,
            lean_lines=lines,
            recording=self._function(recording=True),
            constants=self.constants,
            call_names=self.call_names,
            tallies=tuple(self.tallies),
            derived=tuple(self.derived),
        )

    def _lean(self) -> tuple[str, dict[int, int]]:
        """The function of streams: the fast form where the stage is one straight line."""
        whole = all(tally.what != "completed" for tally in self.tallies) and not any(
            step.connection is not None and (self._is_structured(step.connection) or self._port_tests(step.connection))
            for step in self.steps
        )
        if not whole or not qualifies(self.steps, self.outputs, self._straight_steps):
            return self._function(recording=False), {}
        names = sorted(self.call_names[step.index] for step in self.steps if self._is_called(step))

        def expression(step: Step) -> str:
            if step.call is None:
                assert step.connection is not None
                return self._carried(step.connection)
            text = self._expression(step, step.call)
            name = self.call_names[step.index]
            return f"{name}_{text.removeprefix(name)}" if name in names else text

        def condition(step: Step) -> str:
            connection = step.connection
            if connection is None or connection.when is None:
                return ""
            self.constants.update(connection.when.bindings)
            return f"({self._condition(step, connection, self._base(connection))})"

        return write_straight(
            _identifier(self.stage.id),
            self.steps,
            self.tallies,
            [self._read(output.out.arguments[0]) for output in self.outputs],
            expression=expression,
            condition=condition,
            passed=lambda step: self._argument(step, step.call, 0) if step.call is not None else "v",
            locals_=names,
        )

    def _is_called(self, step: Step) -> bool:
        """A plain function call: not an expression compiled into the function, not a class node."""
        return step.call is not None and not step.call.node.node.is_class and self._compiled(step.call) is None

    def _base(self, connection: ResolvedConnection) -> str:
        sender = self.by_node.get(connection.from_node)
        return "v" if sender is None else self.steps[sender].variable

    def _carried(self, connection: ResolvedConnection) -> str:
        """What a connection carries, its path followed."""
        value = self._base(connection)
        for part in connection.path:
            value = f"at.field({value}, {part!r})"
        return value

    def _function(self, *, recording: bool) -> str:
        writer = Writer()
        name = _identifier(self.stage.id)
        writer.line(f"def stage_{name}(values, rows, at):")
        with writer.indented():
            writer.line("note = at.note")
            if recording:
                writer.line("start = at.start; done = at.done")
            for index, output in enumerate(self.outputs):
                if output.error_of is not None:
                    continue
                writer.line(f"values{index} = []; out{index} = values{index}.append")
                if output.may_drop:
                    writer.line(f"rows{index} = []; row{index} = rows{index}.append")
            for tally in self.tallies:
                writer.line(f"{tally.variable} = 0")
            writer.line("for i, v in enumerate(values) if rows is None else zip(rows, values):")
            with writer.indented():
                if not self.steps and all(output.error_of is not None for output in self.outputs):
                    writer.line("pass")
                for step in self.steps:
                    if step.call is not None:
                        self._write_call(writer, step, recording=recording)
                    else:
                        self._write_wire(writer, step)
                for index, output in enumerate(self.outputs):
                    if output.error_of is None:
                        self._write_out(writer, index, output)
            pairs = [
                "None" if output.error_of is not None
                else f"(values{index}, {f'rows{index}' if output.may_drop else 'None'})"
                for index, output in enumerate(self.outputs)
            ]  # fmt: skip
            tallies = ", ".join(tally.variable for tally in self.tallies)
            writer.line(f"return [{', '.join(pairs)}], ({tallies}{',' if len(self.tallies) == 1 else ''})")
        return writer.text()

    def _straight(self, index: int) -> bool:
        """Nothing later can do without this step, so a row absent here is done with."""
        return index in self._straight_steps

    def _find_straight(self) -> frozenset[int]:
        """Steps that every later step and every output needs; one pass from the end."""
        needed: frozenset[int] | None = None
        for output in self.outputs:
            if output.error_of is None:
                needs = self._reads([*output.out.arguments, *output.out.controls])[0]
                needed = needs if needed is None else needed & needs
        found: set[int] = set()
        for step in reversed(self.steps):
            if needed is None or step.index in needed:
                found.add(step.index)
            needed = step.needs if needed is None else needed & step.needs
        return frozenset(found)

    def _guard(self, writer: Writer, step: Step) -> bool:
        """Write the test whether what the step needs is there; True when an `else:` block is open."""
        direct = self._direct(step)
        unsure = [self.steps[index].variable for index in direct if not self._straight(index)]
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
        return "continue" if self._straight(step.index) else f"{step.variable} = {mark}"

    def _direct(self, step: Step) -> list[int]:
        """Steps whose variables the step reads as required values."""
        if step.call is None:
            assert step.connection is not None
            sender = self.by_node.get(step.connection.from_node)
            return [] if sender is None else [sender]
        found: dict[int, None] = {}
        for argument in (*step.call.arguments, *step.call.controls):
            if isinstance(argument, Wire) and argument.connection.kind != "error":
                source = self._source_of(argument.connection)
                if source is not None:
                    found[source] = None
        return list(found)

    def _write_call(self, writer: Writer, step: Step, *, recording: bool) -> None:
        call = step.call
        assert call is not None
        writer.line(f"# {call.node.id}: {call.node.definition.type}")
        guarded = self._guard(writer, step)
        with writer.indented(guarded):
            gathers = self._write_gathers(writer, step, call)
            with writer.indented(gathers):
                self._write_body(writer, step, call, recording=recording)

    def _write_gathers(self, writer: Writer, step: Step, call: Call) -> bool:
        """Arguments made of several values that may be missing; True when an `else:` block is open."""
        names: list[str] = []
        needed: list[str] = []
        for position, argument in enumerate(call.arguments):
            if isinstance(argument, Coalesce | Collected):
                name = f"{step.variable}_in{position}"
                parts = argument.wires if isinstance(argument, Coalesce) else argument.parts
                sources = ", ".join(self._read(part) for part in parts)
                writer.line(f"{name} = [x for x in ({sources},) if x is not ABSENT]")
                names.append(name)
                needed.append(f"not {name}")
        if not names:
            return False
        failed = " or ".join(f"any(x is FAILED for x in {name})" for name in names)
        writer.line(f"if {failed}: {self._leave(step, 'FAILED')}")
        writer.line(f"elif {' or '.join(needed)}: {self._leave(step, 'ABSENT')}")
        writer.line("else:")
        return True

    def _write_body(self, writer: Writer, step: Step, call: Call, *, recording: bool) -> None:
        straight = self._straight(step.index)
        if call.node.role == "source":
            given = call.arguments[0]
            assert isinstance(given, Given)
            writer.line(f"{step.variable} = v.get({given.name!r}, ABSENT)")
            completed = self._tally(step.index, "completed")
            if completed:
                writer.line(f"if {step.variable} is not ABSENT: {completed.variable} += 1")
            if recording:
                writer.line(
                    f"if {step.variable} is not ABSENT: done(i, {step.index}, {step.variable}, start(i, {step.index}))"
                )
            if straight:
                writer.line(f"if {step.variable} is ABSENT: continue")
            return
        expression = self._expression(step, call)
        is_filter = call.node.role == "filter"
        if recording:
            writer.line(f"t = start(i, {step.index})")
        writer.line("try:")
        with writer.indented():
            writer.line(f"{step.variable} = {expression}")
        writer.line("except Exception as e:")
        with writer.indented():
            writer.line(f"note(i, {step.index}, e{', t' if recording else ''})")
            writer.line("continue" if straight else f"{step.variable} = FAILED")
        completed = self._tally(step.index, "completed")
        if not (is_filter or recording or completed):
            return
        opened = not straight
        if opened:
            writer.line("else:")
        with writer.indented(opened):
            if completed:
                writer.line(f"{completed.variable} += 1")
            if is_filter:
                self._write_filter(writer, step, call, leave=straight and not recording)
            if recording:
                writer.line(f"done(i, {step.index}, {step.variable}, t)")
                if is_filter and straight:
                    writer.line(f"if {step.variable} is ABSENT: continue")

    def _write_filter(self, writer: Writer, step: Step, call: Call, *, leave: bool) -> None:
        """The variable holds the verdict; put the value that passes in its place."""
        dropped = self._tally(step.index, "dropped")
        assert dropped is not None
        writer.line(f"if not {step.variable}:")
        with writer.indented():
            writer.line(f"{dropped.variable} += 1")
            writer.line("continue" if leave else f"{step.variable} = ABSENT")
        passed = self._argument(step, call, 0)
        if leave:
            writer.line(f"{step.variable} = {passed}")
        else:
            writer.line(f"else: {step.variable} = {passed}")

    def _write_wire(self, writer: Writer, step: Step) -> None:
        connection = step.connection
        assert connection is not None
        writer.line(f"# {connection.from_node}.{connection.from_port} -> {connection.to_node}")
        guarded = self._guard(writer, step)
        straight = self._straight(step.index)
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
            if straight and self._may_drop(step.index):
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
            left: where the branch of this step is known not to be taken.
        """
        tally = self._tally(step.index, "unrouted")
        if tally is None:
            return
        tests = self._port_tests(connection)
        for index in self._branches()[connection.from_node, connection.from_port]:
            if not (left and index == step.index):
                tests.append(f"{self.steps[index].variable} is ABSENT")
        if tests:
            writer.line(f"if {' and '.join(tests)}: {tally.variable} += 1")
        else:
            writer.line(f"{tally.variable} += 1")

    def _port_tests(self, connection: ResolvedConnection) -> list[str]:
        """What must hold for the sending port to have a value at all."""
        sender = self.by_node.get(connection.from_node)
        base = "v" if sender is None else self.steps[sender].variable
        tests: list[str] = []
        if sender is not None and not self._straight(sender):
            tests.append(f"{base} is not ABSENT and {base} is not FAILED")
        if self._is_structured(connection):
            tests.append(f"{base}.{connection.from_port} is not at.unset")
        return tests

    def _write_wire_value(self, writer: Writer, step: Step, connection: ResolvedConnection) -> None:
        sender = self.by_node.get(connection.from_node)
        base = "v" if sender is None else self.steps[sender].variable
        if self._is_structured(connection):
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
        value = base
        for part in connection.path:
            value = f"at.field({value}, {part!r})"
        if connection.when is not None:
            self.constants.update(connection.when.bindings)
            condition = self._condition(step, connection, base)
            writer.line(f"{step.variable} = {value} if {condition} else ABSENT")
        elif connection.otherwise:
            siblings = [self.steps[index].variable for index in self.else_of[step.index]]
            tests = " and ".join(f"{variable} is ABSENT" for variable in siblings) or "True"
            failed = " or ".join(f"{variable} is FAILED" for variable in siblings) or "False"
            writer.line(f"{step.variable} = {value} if {tests} else FAILED if {failed} else ABSENT")
        else:
            writer.line(f"{step.variable} = {value}")

    def _condition(self, step: Step, connection: ResolvedConnection, base: str) -> str:
        when = connection.when
        assert when is not None
        names = {"value": base, "key": "at.key(i)", "headers": "at.headers(i)", "record": "at.record(i)"}
        return when.source(names)

    def _write_out(self, writer: Writer, index: int, output: Output) -> None:
        arguments = [*output.out.arguments, *output.out.controls]
        unsure = [
            self.steps[source].variable
            for argument in arguments
            if isinstance(argument, Wire)
            and (source := self._source_of(argument.connection)) is not None
            and not self._straight(source)
        ]
        values: list[str] = []
        checks = [
            f"{variable} is not ABSENT and {variable} is not FAILED" for variable in dict.fromkeys(unsure)
        ]
        for position, argument in enumerate(output.out.arguments):
            name = f"o{index}_{position}"
            if isinstance(argument, Given):
                default = self._constant(argument.default if not argument.required else ABSENT)
                writer.line(f"{name} = v.get({argument.name!r}, {default})")
                if argument.required:
                    checks.append(f"{name} is not ABSENT")
                values.append(name)
            elif isinstance(argument, Coalesce | Collected):
                parts = argument.wires if isinstance(argument, Coalesce) else argument.parts
                sources = ", ".join(self._read(part) for part in parts)
                writer.line(f"{name} = [x for x in ({sources},) if x is not ABSENT]")
                checks.append(f"not any(x is FAILED for x in {name})")
                checks.append(name)
                values.append(f"{name}[0]" if isinstance(argument, Coalesce) else name)
            else:
                values.append(self._read(argument))
        value = values[0] if output.out.single else f"({', '.join(values)}{',' if len(values) == 1 else ''})"
        if checks:
            writer.line(f"if {' and '.join(checks)}:")
        with writer.indented(bool(checks)):
            writer.line(f"out{index}({value})")
            if output.may_drop:
                writer.line(f"row{index}(i)")

    # --- values ---------------------------------------------------------------------------------------

    def _read(self, argument: Argument) -> str:
        if isinstance(argument, Wire):
            if argument.connection.kind == "error":
                raise EngineError("an error edge was read as a value")
            source = self._source_of(argument.connection)
            return "v" if source is None else self.steps[source].variable
        if isinstance(argument, Item):
            return "v" if argument.index is None else f"v[{argument.index}]"
        if isinstance(argument, Const):
            return self._constant(argument.value)
        if isinstance(argument, Given):
            return f"v.get({argument.name!r}, {self._constant(argument.default)})"
        raise EngineError(f"{argument!r} has no single value")

    def _argument(self, step: Step, call: Call, position: int) -> str:
        argument = call.arguments[position]
        if isinstance(argument, Coalesce):
            return f"{step.variable}_in{position}[0]"
        if isinstance(argument, Collected):
            return f"{step.variable}_in{position}"
        return self._read(argument)

    def _expression(self, step: Step, call: Call) -> str:
        """The Python expression that computes the node."""
        definition = call.node.node
        arguments = [self._argument(step, call, position) for position in range(len(call.arguments))]
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

    def _compiled(self, call: Call) -> Any:
        definition = call.node.node
        if definition.computes is None or call.node.config is None:
            return None
        return getattr(call.node.config, definition.computes).compiled

    def _constant(self, value: object) -> str:
        if value is None or value is True or value is False:
            return repr(value)
        if value is ABSENT:
            return "ABSENT"
        name = f"default_{len(self.constants)}"
        self.constants[name] = value
        return name
