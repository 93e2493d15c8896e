"""Inputs of a request: from what the user wrote to a value for each open port.

Owns: the rule. Two forms are read:
    by node id   {"fetch": {"url": "..."}}; for a source its record: {"tickets": {"text": "..."}}
    flat         {"url": "..."}, when no key is a node id and either each key names one open port, or the
                 workflow has exactly one source: then the object is its record
Does not own: parsing text (the command line), checking types (the nodes), running.

Always holds: pure; a form with two readings is an error that shows both; every problem is listed at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from flowcore.findings import Findings, did_you_mean, shown

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph

SOURCE_PORT = "out"


def request_inputs(graph: ResolvedGraph, given: object) -> dict[str, Any]:
    """The value of each port a request fills, by `node.port`.

    Args:
        graph: validated for requests.
        given: by node id, or flat; a value that is no mapping is the record of the workflow's one source. A
            source takes its record as it is, or as `{"out": record}`.

    Raises:
        ValidationFailedError: unknown names, two readings, or required inputs left out; all are listed.
    """
    return _Reader(graph).read(given)


class _Reader:
    def __init__(self, graph: ResolvedGraph) -> None:
        self._graph = graph
        self._sources = graph.sources
        self._findings = Findings()

    def read(self, given: object) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            found = self._record(given)
        else:
            inputs = cast("Mapping[str, Any]", given)
            by_node = not inputs or any(key in self._graph.nodes for key in inputs)
            found = self._by_node(inputs) if by_node else self._flat(inputs)
        self._check_complete(found)
        self._findings.raise_if_any("input")
        return found

    # --- the forms ---

    def _record(self, value: object) -> dict[str, Any]:
        if len(self._sources) == 1:
            return {f"{self._sources[0]}.{SOURCE_PORT}": value}
        self._findings.add(
            ("input",),
            "is no object, and only a workflow with exactly one source takes any other value as its record",
            remedy=f"write an object: {self._example()}",
            value=value,
        )
        return {}

    def _by_node(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in inputs.items():
            node = self._graph.nodes.get(name)
            if node is None:
                self._findings.add_unknown(("input",), name, self._takers(), what="node")
            elif node.role == "source":
                found[f"{name}.{SOURCE_PORT}"] = _unwrapped(value)
            else:
                found |= self._ports(name, value)
        return found

    def _ports(self, node_id: str, value: object) -> dict[str, Any]:
        open_ports = self._graph.open_ports.get(node_id, ())
        if not isinstance(value, Mapping):
            remedy = f'write {{"{node_id}": {{"{(*open_ports, "port")[0]}": ...}}}}'
            self._findings.add(
                ("input", node_id), "must be an object: a value by port", remedy=remedy, value=value
            )
            return {}
        found: dict[str, Any] = {}
        for port, content in cast("Mapping[str, Any]", value).items():
            if port in open_ports:
                self._take(found, node_id, port, content)
            elif self._graph.nodes[node_id].definition.input(port) is not None:
                message = f"input {port!r} of {node_id!r} is connected: its value comes from another node"
                remedy = f"give that node's inputs, or one of: {', '.join(open_ports)}" if open_ports else ""
                self._findings.add(("input", node_id, port), message, remedy=remedy or "leave it out")
            else:
                remedy = "" if open_ports else f"{node_id!r} has no open input port; give {self._example()}"
                self._findings.add_unknown(
                    ("input", node_id), port, open_ports, what="input port", remedy=remedy
                )
        return found

    def _take(self, found: dict[str, Any], node_id: str, port: str, value: Any) -> None:
        """A port that gathers takes what its connections would give: a list."""
        declared = self._graph.nodes[node_id].definition.input(port)
        if declared is not None and declared.gather and not isinstance(value, list | tuple):
            message = "takes a list: the values of all its connections"
            self._findings.add(("input", node_id, port), message, value=value)
            return
        found[f"{node_id}.{port}"] = value

    def _flat(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        ports = self._ports_by_name()
        fits = all(len(ports.get(key, ())) == 1 for key in inputs)
        if fits and len(self._sources) == 1:
            example = self._example_of(ports[next(iter(inputs))][0])
            as_ports = ", ".join(f"{key!r} for {ports[key][0]}" for key in inputs)
            self._findings.add(
                ("input",),
                f"has two readings: the record of source {self._sources[0]!r}, or {as_ports}",
                remedy=f'say which: {{"{self._sources[0]}": {{...}}}} or {example}',
            )
            return {}
        if fits:
            found: dict[str, Any] = {}
            for key, value in inputs.items():
                node_id, _, port = ports[key][0].rpartition(".")
                self._take(found, node_id, port, value)
            return found
        if len(self._sources) == 1:
            return {f"{self._sources[0]}.{SOURCE_PORT}": inputs}
        for key in inputs:
            self._add_flat_problem(key, ports)
        return {}

    def _add_flat_problem(self, key: str, ports: Mapping[str, Sequence[str]]) -> None:
        named = ports.get(key, ())
        if len(named) == 1:
            return
        if named:
            remedy = f"name the node: {' or '.join(self._example_of(port) for port in named[:4])}"
            self._findings.add(
                ("input", key), f"names {len(named)} open ports: {', '.join(named[:8])}", remedy=remedy
            )
            return
        remedy = (
            did_you_mean(str(key), [*self._takers(), *ports]) or "this workflow takes no inputs: leave it out"
        )
        self._findings.add(
            ("input", str(key)), f"{shown(key)} is no node and no open input port", remedy=remedy
        )

    # --- completeness ---

    def _check_complete(self, found: Mapping[str, Any]) -> None:
        """Note every required open port that has no value; a wrong input is said first and alone."""
        if self._findings.problems:
            return
        for node_id, ports in self._graph.open_ports.items():
            for port in ports:
                declared = self._graph.nodes[node_id].definition.input(port)
                required = declared is not None and declared.required and not declared.gather
                if required and f"{node_id}.{port}" not in found:
                    message = f"input {port!r} of {node_id!r} is required and was not given"
                    remedy = f"add {self._example_of(f'{node_id}.{port}')}"
                    self._findings.add(("input", node_id, port), message, remedy=remedy)
        fed = any(name.rpartition(".")[0] in self._sources for name in found)
        if self._sources and not fed and not self._has_other_entry():
            names = " or ".join(repr(name) for name in self._sources)
            message = f"nothing would run: a request needs a record for source {names}"
            self._findings.add(("input",), message, remedy=f'add {{"{self._sources[0]}": ...}}')

    def _has_other_entry(self) -> bool:
        """Whether a node begins by itself, without any source."""
        receivers = {connection.to_node for connection in self._graph.connections}
        return any(
            node.role not in ("source", "sink") and node.id not in receivers
            for node in self._graph.nodes.values()
        )

    # --- names ---

    def _ports_by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for node_id, ports in self._graph.open_ports.items():
            for port in ports:
                found.setdefault(port, []).append(f"{node_id}.{port}")
        return found

    def _takers(self) -> list[str]:
        return [*self._sources, *self._graph.open_ports]

    def _example(self) -> str:
        if self._sources:
            return f'{{"{self._sources[0]}": ...}}'
        names = [f"{node_id}.{ports[0]}" for node_id, ports in self._graph.open_ports.items()]
        return self._example_of(names[0]) if names else "{}"

    def _example_of(self, name: str) -> str:
        node_id, _, port = name.rpartition(".")
        return f'{{"{node_id}": {{"{port}": ...}}}}'


def _unwrapped(value: object) -> object:
    """A source's record: as it is, or by its one port."""
    if not isinstance(value, Mapping):
        return value
    record = cast("Mapping[str, Any]", value)
    return record[SOURCE_PORT] if set(record) == {SOURCE_PORT} else record
