"""What a fused stage computes: its steps in order, what each needs, and what is counted.

Owns: numbering the nodes and the connections that compute something, which steps a row cannot do without
(straight ones), and which counts the frame's size does not tell.
Does not own: the text written for a step (fuse, values).

Always holds: a step reads steps of lower numbers only; a connection without condition and path has no step.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from flowcore.errors import EngineError
from flowruntime.compile.plan import Argument, Call, Coalesce, Collected, Given, Out, Stage, Wire
from flowruntime.compile.resolved import ResolvedConnection


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


def identifier(text: str) -> str:
    """A node id as a Python name."""
    name = re.sub(r"\W", "_", text)
    return f"{name}_" if keyword.iskeyword(name) else name


def _wires(argument: Argument) -> Iterator[Wire]:
    """The connections an argument is read from."""
    if isinstance(argument, Wire):
        yield argument
    elif isinstance(argument, Coalesce):
        yield from argument.wires
    elif isinstance(argument, Collected):
        for part in argument.parts:
            yield from _wires(part)


class Steps:
    """The steps of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.all: list[Step] = []
        self.by_node: dict[str, int] = {}
        self.by_wire: dict[int, int] = {}
        """By index of the connection."""
        self.else_of: dict[int, list[int]] = {}
        """By step of an `else`: the steps of the branches it excludes."""
        self._may_drop: dict[int, bool] = {}
        self._branches: dict[tuple[str, str], list[int]] | None = None
        self.unconnected: dict[int, tuple[str, ...]] = {}
        """Of nodes with exclusive outputs: the ports nothing is connected to."""
        self._number_steps()
        self.outputs = [self._output(out) for out in stage.outs]
        self.straight_steps = self._find_straight()
        self.tallies: list[Tally] = []
        self._tally_of: dict[tuple[int, str], Tally] = {}
        self._tally_place: dict[tuple[int, str], int] = {}
        self.derived: list[tuple[Step, tuple[int, ...]]] = []
        """Nodes that need no tally: each with the tallies to take away from the frame's size."""
        self._choose_tallies()

    def _number_steps(self) -> None:
        wires = self._wires_by_sender()
        if self.stage.root is not None:
            for connection in wires.pop(self.stage.root.id, ()):
                self._wire_step(connection)
        for call in self.stage.calls:
            needs, after = self._reads([*call.arguments, *call.controls])
            index = self._step(
                call.node.id, f"{identifier(call.node.id)}_{len(self.all)}", call, None, needs, after
            )
            self.by_node[call.node.id] = index
            connections = wires.pop(call.node.id, ())
            self._note_unconnected(index, call, connections)
            for connection in connections:
                self._wire_step(connection)
        if wires:
            raise EngineError(f"stage {self.stage.id!r} reads nodes it does not run: {sorted(wires)}")

    def _note_unconnected(self, index: int, call: Call, connections: Collection[ResolvedConnection]) -> None:
        """A node that takes one of several ways: a row that goes where nothing is connected is unrouted."""
        taken = {connection.from_port for connection in connections if connection.kind != "error"}
        if call.node.role == "source" or not call.node.node.exclusive_outputs or not taken:
            return
        left = tuple(port.name for port in call.node.definition.outputs if port.name not in taken)
        if left:
            self.unconnected[index] = left

    def _choose_tallies(self) -> None:
        """Count only what the frame's size does not tell."""
        for step in self.all:
            if step.call is not None and step.call.node.role == "filter":
                self._add_tally(Tally(step.index, step.name, "dropped"))
        for index in self.unconnected:
            self._add_tally(Tally(index, self.all[index].name, "unrouted"))
        for steps in self.branches().values():
            sender = self.all[steps[0]].connection
            if sender is not None:
                self._add_tally(Tally(max(steps), sender.from_node, "unrouted"))
        for step in self.all:
            if step.call is None:
                continue
            # A row that goes on with a fallback is not completed here, but at the steps behind it.
            takers = None if step.call.node.fallback is not None else self._takers(step)
            if takers is None:
                self._add_tally(Tally(step.index, step.name, "completed"))
            else:
                self.derived.append((step, takers))

    def _takers(self, step: Step) -> tuple[int, ...] | None:
        """The tallies of rows that never reach a step; None: not to be told apart, it counts by itself."""
        if self.may_drop(step.index) and step.call is not None and step.call.node.role != "filter":
            return None
        found: list[int] = []
        for index in sorted(step.after):
            if not self.may_drop(index):
                continue
            tally = self.tally(index, "dropped") or self.tally(index, "unrouted")
            connection = self.all[index].connection
            structured = connection is not None and self.is_structured(connection)
            if tally is None or structured or not self.straight(index):
                return None
            if (
                connection is not None
                and len(self.branches()[connection.from_node, connection.from_port]) > 1
            ):
                return None  # a row this branch did not take may have gone another way
            found.append(self._tally_place[tally.step, tally.what])
        return tuple(found)

    def branches(self) -> dict[tuple[str, str], list[int]]:
        """Conditional connections of one port that has no `else`, as steps; found once."""
        if self._branches is None:
            self._branches = self._find_branches()
        return self._branches

    def _find_branches(self) -> dict[tuple[str, str], list[int]]:
        groups: dict[tuple[str, str], list[int]] = {}
        closed: set[tuple[str, str]] = set()
        for step in self.all:
            if step.connection is not None and (
                step.connection.when is not None or step.connection.otherwise
            ):
                port = (step.connection.from_node, step.connection.from_port)
                if step.connection.otherwise:
                    closed.add(port)
                groups.setdefault(port, []).append(step.index)
        return {port: steps for port, steps in groups.items() if port not in closed}

    def _add_tally(self, tally: Tally) -> None:
        self._tally_place.setdefault((tally.step, tally.what), len(self.tallies))
        self.tallies.append(tally)
        self._tally_of.setdefault((tally.step, tally.what), tally)

    def tally(self, step: int, what: str) -> Tally | None:
        return self._tally_of.get((step, what))

    def _wires_by_sender(self) -> dict[str, list[ResolvedConnection]]:
        """Connections read in this stage, by sender, plain ones included, in order of declaration."""
        found = {
            wire.connection.index: wire.connection
            for reader in (*self.stage.calls, *self.stage.outs)
            for argument in (*reader.arguments, *reader.controls)
            for wire in _wires(argument)
        }
        senders: dict[str, list[ResolvedConnection]] = {}
        for _, connection in sorted(found.items()):
            senders.setdefault(connection.from_node, []).append(connection)
        for connections in senders.values():
            # `else` comes after what it excludes.
            connections.sort(key=lambda connection: connection.otherwise)
        return senders

    def _wire_step(self, connection: ResolvedConnection) -> None:
        """A step for a connection that computes something; a plain one is the sender's variable itself."""
        sender = self.by_node.get(connection.from_node)
        if not (
            connection.when is not None
            or connection.otherwise
            or connection.path
            or self.is_structured(connection)
        ):
            return
        if connection.kind == "error":
            return
        base = frozenset[int]() if sender is None else self.all[sender].needs | {sender}
        after = frozenset[int]() if sender is None else self.all[sender].after | {sender}
        siblings: list[int] = []
        if connection.otherwise:
            siblings = [
                self.by_wire[index]
                for index, step in self.by_wire.items()
                if (other := self.all[step].connection) is not None
                and other.from_node == connection.from_node
                and other.from_port == connection.from_port
                and other.when is not None
            ]
            after = after.union(siblings)
        variable = f"to_{identifier(connection.to_node)}_{len(self.all)}"
        index = self._step(connection.to_node, variable, None, connection, base, after)
        self.by_wire[connection.index] = index
        self.else_of[index] = siblings

    def is_structured(self, connection: ResolvedConnection) -> bool:
        """Whether its sender answers with a struct of ports, of which it takes one."""
        sender = self.by_node.get(connection.from_node)
        if sender is not None:
            call = self.all[sender].call
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
        index = len(self.all)
        self.all.append(Step(index, name, variable, call, connection, needs, after))
        return index

    def source_of(self, connection: ResolvedConnection) -> int | None:
        """The step whose variable holds what the connection carries; None: the stage's input."""
        if connection.index in self.by_wire:
            return self.by_wire[connection.index]
        return self.by_node.get(connection.from_node)

    def _reads(self, arguments: list[Argument | Wire]) -> tuple[frozenset[int], frozenset[int]]:
        needs: set[int] = set()
        after: set[int] = set()
        for argument in arguments:
            if isinstance(argument, Wire) and argument.connection.kind != "error":
                step = self.source_of(argument.connection)
                if step is not None:
                    needs |= {step, *self.all[step].needs}
                    after |= {step, *self.all[step].after}
            elif isinstance(argument, Coalesce | Collected):
                parts = argument.wires if isinstance(argument, Coalesce) else argument.parts
                for part in parts:
                    _, below = self._reads([part])
                    after |= below
            elif isinstance(argument, Wire):
                step = self.by_node.get(argument.connection.from_node)
                if step is not None:
                    after |= self.all[step].after
        return frozenset(needs), frozenset(after)

    def _output(self, out: Out) -> Output:
        _, after = self._reads([*out.arguments, *out.controls])
        error_of: str | None = None
        if len(out.arguments) == 1 and isinstance(out.arguments[0], Wire):
            connection = out.arguments[0].connection
            if connection.kind == "error":
                error_of = connection.from_node
        may_drop = any(self.may_drop(step) for step in after) or any(
            isinstance(argument, Given | Coalesce) for argument in out.arguments
        )
        return Output(after, error_of, may_drop, out)

    def may_drop(self, index: int) -> bool:
        """Whether the step may leave a row without a value though nothing failed."""
        found = self._may_drop.get(index)
        if found is None:
            found = self._may_drop[index] = self._find_may_drop(index)
        return found

    def _find_may_drop(self, index: int) -> bool:
        step = self.all[index]
        if step.connection is not None:
            return (
                step.connection.when is not None
                or step.connection.otherwise
                or self.is_structured(step.connection)
            )
        return step.call is not None and (
            step.call.node.role in ("source", "filter")
            or any(isinstance(argument, Coalesce | Collected) for argument in step.call.arguments)
        )

    def straight(self, index: int) -> bool:
        """Nothing later can do without this step, so a row absent here is done with."""
        return index in self.straight_steps

    def _find_straight(self) -> frozenset[int]:
        """Steps that every later step and every output needs; one pass from the end."""
        needed: frozenset[int] | None = None
        for output in self.outputs:
            if output.error_of is None:
                needs = self._reads([*output.out.arguments, *output.out.controls])[0]
                needed = needs if needed is None else needed & needs
        found: set[int] = set()
        for step in reversed(self.all):
            if needed is None or step.index in needed:
                found.add(step.index)
            needed = step.needs if needed is None else needed & step.needs
        return frozenset(found)

    def direct(self, step: Step) -> list[int]:
        """Steps whose variables the step reads as required values."""
        if step.connection is not None:
            sender = self.by_node.get(step.connection.from_node)
            return [] if sender is None else [sender]
        if step.call is None:
            return []
        found: dict[int, None] = {}
        for argument in (*step.call.arguments, *step.call.controls):
            if isinstance(argument, Wire) and argument.connection.kind != "error":
                source = self.source_of(argument.connection)
                if source is not None:
                    found[source] = None
        return list(found)
