"""Documents: a workflow as plain data, read with every problem found at once.

Owns: the fields of a workflow file, from plain data with marks to a `Workflow`.
Does not own: YAML and JSON themselves (flowruntime.definition), writing (flowcore.dump), whether types,
ports and expressions exist (flowruntime.compile).

Always holds: `from_document(to_document(w)) == w`; data of any shape gives a Workflow or a
ValidationFailedError whose problems name path, value and remedy, and the line where marks are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from flowcore.binding import config_params
from flowcore.coercion import coerce
from flowcore.connection import (
    CONNECTION_KINDS,
    Connection,
    make_connection,
    parse_arrow,
    parse_endpoint,
)
from flowcore.errors import CoercionError, FlowError
from flowcore.fields import FieldReader
from flowcore.findings import NOTHING, Findings, Mark, MarksUnder, Path
from flowcore.ids import NodeId, node_id_fault, suggest_node_id
from flowcore.policies import NO_POLICIES, POLICY_NAMES, NodePolicies
from flowcore.settings import PARAM_KINDS, ParamSpec, Settings, param_name_fault
from flowcore.shapes import read_declared, type_name
from flowcore.workflow import MAX_NESTING, MAX_NODES, WORKFLOW_TYPE, NodeSpec, Workflow

WORKFLOW_FIELDS: Final = (
    "name",
    "id",
    "version",
    "description",
    "params",
    "settings",
    "nodes",
    "connections",
)
NODE_FIELDS: Final = ("type", "config", "description", *POLICY_NAMES)
PARAM_FIELDS: Final = ("default", "kind", "description")
INNER_FIELDS: Final = ("workflow", "params")
SHORT_FIELDS: Final = ("from", "to", "when", "else", "when_error", "kind")
LONG_FIELDS: Final = (
    "from_node", "from_port", "from_path", "to_node", "to_port", "when", "else", "when_error", "kind",
)  # fmt: skip


def from_document(
    data: object,
    *,
    env: Mapping[str, str] | None = None,
    marks: Mapping[Path, Mark] | None = None,
    file: str | None = None,
) -> Workflow:
    """Read plain data as a workflow.

    Args:
        data: what a YAML or JSON reader gives: dicts with text keys, lists and scalars.
        env: what `${NAME}` refers to; None: nothing is set, so only defaults count.
        marks: where each path was written, for the lines of problems.
        file: named in problems when a mark names none.

    Raises:
        ValidationFailedError: anything is wrong; `problems` lists all of it.
    """
    findings = Findings(marks=marks, file=file)
    reader = _Reader(FieldReader(findings, env or {}), marks or {}, (), depth=1)
    workflow = reader.workflow(data)
    findings.raise_if_any("workflow")
    return workflow


class _Reader:
    """Reads one workflow; nested ones get a reader of their own over the same findings."""

    def __init__(
        self,
        read: FieldReader,
        marks: Mapping[Path, Mark],
        path: Path,
        *,
        depth: int,
    ) -> None:
        self._read: Final = read
        self._marks: Final = marks
        self._path: Final = path
        self._depth: Final = depth

    # --- the whole ------------------------------------------------------------------------------------

    def workflow(self, data: object) -> Workflow:
        fields = self._read.mapping(data, self._path, WORKFLOW_FIELDS, what="workflow field")
        at = self._path
        name = self._read.text(fields, "name", at, required=True)
        identity = self._read.text(fields, "id", at)
        workflow = Workflow(
            name or "unnamed",
            id=identity or None,
            version=self._read.text(fields, "version", at) or "1",
            description=self._read.text(fields, "description", at, empty=True) or "",
            params=self._params(fields.get("params", {})),
            settings=self._settings(fields.get("settings", {}), (*at, "settings")),
        )
        self._nodes(fields.get("nodes", {}), workflow)
        self._connections(fields.get("connections", []), workflow)
        workflow.marks = MarksUnder(self._marks, self._path) if self._path else self._marks
        return workflow

    def _settings(self, data: object, at: Path) -> Settings:
        read = read_declared(Settings, self._read.plain(data, at), at, self._read.findings)
        return Settings() if read is NOTHING else read

    def _params(self, data: object) -> dict[str, ParamSpec]:
        at = (*self._path, "params")
        params: dict[str, ParamSpec] = {}
        for name, given in self._read.mapping(data, at).items():
            fault = param_name_fault(name)
            if fault is not None:
                self._read.findings.add((*at, name), f"param name {fault}", value=name)
                continue
            params[name] = self._param(given, (*at, name))
        return params

    def _param(self, given: object, at: Path) -> ParamSpec:
        if given is None:
            remedy = "write {default: null}, or {kind: str} for a param that must be given"
            self._read.findings.add(at, "a param is a default value or a mapping, not null", remedy=remedy)
            return ParamSpec()
        if not isinstance(given, dict) or self._read.is_form(cast("object", given)):
            return ParamSpec(default=self._read.constant(cast("object", given), at))
        fields = self._read.mapping(
            cast("object", given), at, PARAM_FIELDS, what="param field", keep_empty=True
        )
        default = (
            self._read.constant(fields["default"], (*at, "default")) if "default" in fields else msgspec.UNSET
        )
        kind = self._read.text(fields, "kind", at) or None
        if kind is not None and kind not in PARAM_KINDS:
            self._read.findings.add((*at, "kind"), f"must be one of {', '.join(PARAM_KINDS)}", value=kind)
            return ParamSpec()
        description = self._read.text(fields, "description", at, empty=True) or ""
        spec = ParamSpec(default=default, kind=cast("Any", kind), description=description)
        if kind is not None and default is not msgspec.UNSET and default is not None:
            try:
                coerce(default, spec.kind or "str")
            except CoercionError as fault:
                self._read.findings.add(
                    (*at, "default"), f"must be of kind {kind}", value=default, remedy=str(fault)
                )
        return spec

    # --- nodes ----------------------------------------------------------------------------------------

    def _nodes(self, data: object, workflow: Workflow) -> None:
        at = (*self._path, "nodes")
        nodes = self._read.mapping(data, at)
        if not nodes and isinstance(data, dict):
            self._read.findings.add(
                at, "a workflow needs at least one node", remedy="add one: nodes: {clean: {type: text.clean}}"
            )
        if len(nodes) > MAX_NODES:
            self._read.findings.add(
                at, f"has {len(nodes)} nodes, more than {MAX_NODES}", remedy="split it into nested workflows"
            )
            return
        for name, given in nodes.items():
            fault = node_id_fault(name)
            if fault is not None:
                remedy = f"{str(suggest_node_id(name))!r} would do"
                self._read.findings.add((*at, name), f"node id {fault}", value=name, remedy=remedy)
                continue
            workflow.add_node(self._node(NodeId(name), given, (*at, name), workflow))

    def _node(self, node_id: NodeId, given: object, at: Path, workflow: Workflow) -> NodeSpec:
        if isinstance(given, str):
            given = {"type": given}
        if not isinstance(given, dict):
            self._read.mapping(given, at)
            return NodeSpec(id=node_id, type="unknown")
        fields = self._read.mapping(cast("object", given), at, NODE_FIELDS, what="node field")
        kind = self._read.text(fields, "type", at, required=True) or "unknown"
        if any(node_id_fault(part) for part in kind.split(".")):
            self._read.findings.add(
                (*at, "type"), "is no node type", value=kind, remedy="write it like 'text.clean'"
            )
        policies = self._policies(fields, at, workflow)
        description = self._read.text(fields, "description", at, empty=True) or ""
        config = fields.get("config", {})
        if kind == WORKFLOW_TYPE:
            inner, config = self._inner(config, (*at, "config"), workflow)
            if inner is not None:
                return NodeSpec(
                    id=node_id,
                    type=kind,
                    config=config,
                    policies=policies,
                    description=description,
                    workflow=inner,
                )
            kind = "unknown"
        else:
            config = self._config(config, (*at, "config"), workflow)
        return NodeSpec(id=node_id, type=kind, config=config, policies=policies, description=description)

    def _config(self, data: object, at: Path, workflow: Workflow) -> dict[str, object]:
        if self._read.is_form(data):
            self._read.findings.add(at, "must be a mapping of the node type's fields", value=data)
            return {}
        if not isinstance(data, dict):
            return self._read.mapping(data, at)
        config = cast("dict[str, object]", self._read.value(cast("object", data), at) or {})
        self._read.declared(config_params(config, at), workflow.params)
        return config

    def _policies(self, fields: Mapping[str, object], at: Path, workflow: Workflow) -> NodePolicies:
        said = {
            name: self._read.plain(fields[name], (*at, name))
            for name in POLICY_NAMES
            if name in fields and name != "key"
        }
        if "key" in fields:
            said["key"] = self._read.expression(fields["key"], (*at, "key"), workflow.params)
        said = {name: value for name, value in said.items() if value is not NOTHING}
        read = read_declared(NodePolicies, said, at, self._read.findings)
        return NO_POLICIES if read is NOTHING else read

    def _inner(self, data: object, at: Path, workflow: Workflow) -> tuple[Workflow | None, dict[str, object]]:
        fields = self._read.mapping(data, at, (*INNER_FIELDS, "file"), what="field of a workflow node")
        if "file" in fields:
            remedy = "load the outer workflow from a file, or write the inner one under config.workflow"
            self._read.findings.add(
                (*at, "file"), "can only be followed from a file", value=fields["file"], remedy=remedy
            )
            return None, {}
        if "workflow" not in fields:
            remedy = "write it under config.workflow, or name its file in config.file"
            self._read.findings.add(at, "a node of type 'workflow' needs its workflow", remedy=remedy)
            return None, {}
        if self._depth >= MAX_NESTING:
            self._read.findings.add(at, f"workflows nest at most {MAX_NESTING} deep")
            return None, {}
        here = (*at, "workflow")
        reader = _Reader(self._read, self._marks, here, depth=self._depth + 1)
        inner = reader.workflow(fields["workflow"])
        if "params" not in fields:
            return inner, {}
        return inner, {"params": self._config(fields["params"], (*at, "params"), workflow)}

    # --- connections ----------------------------------------------------------------------------------

    def _connections(self, data: object, workflow: Workflow) -> None:
        at = (*self._path, "connections")
        if not isinstance(data, list):
            remedy = "write one per line: - a.out -> b.text"
            self._read.findings.add(at, f"must be a list, not {type_name(data)}", value=data, remedy=remedy)
            return
        for index, given in enumerate(cast("list[object]", data)):
            here = (*at, index)
            before = len(self._read.findings.problems)
            try:
                connection = self._connection(given, here, workflow)
                sound = connection is not None and len(self._read.findings.problems) == before
                if (
                    connection is not None and sound and workflow.nodes
                ):  # no nodes: that is the problem to report
                    workflow.add_connection(connection)
            except FlowError as fault:
                if len(self._read.findings.problems) == before:  # else it only follows from what was found
                    self._read.findings.add(here, str(fault))

    def _connection(self, given: object, at: Path, workflow: Workflow) -> Connection | None:
        if isinstance(given, str):
            text = self._read.plain(given, at)
            if not isinstance(text, str):
                return None
            (node, port, path), (target, target_port) = parse_arrow(text)
            return make_connection(node, port, path, target, target_port)
        if not isinstance(given, dict):
            remedy = "write it as a.out -> b.text, or as {from: a.out, to: b.text, when: ...}"
            self._read.findings.add(
                at, f"must be text or a mapping, not {type_name(given)}", value=given, remedy=remedy
            )
            return None
        if any(name in given for name in ("from_node", "to_node")):
            return self._long(
                self._read.mapping(cast("object", given), at, LONG_FIELDS, what="connection field"),
                at,
                workflow,
            )
        fields = self._read.mapping(cast("object", given), at, SHORT_FIELDS, what="connection field")
        source, target = (self._read.text(fields, name, at, required=True) for name in ("from", "to"))
        if not source or not target:
            return None
        (node, port, path), (to_node, to_port, to_path) = parse_endpoint(source), parse_endpoint(target)
        if to_path:
            remedy = f"write {to_node}.{to_port}"
            self._read.findings.add((*at, "to"), "names a field of an input", value=target, remedy=remedy)
        return make_connection(node, port, path, to_node, to_port, **self._options(fields, at, workflow))

    def _long(self, fields: Mapping[str, object], at: Path, workflow: Workflow) -> Connection | None:
        source, target = (
            self._read.text(fields, name, at, required=True) for name in ("from_node", "to_node")
        )
        port, to_port = (self._read.text(fields, name, at) for name in ("from_port", "to_port"))
        path = self._read.plain(fields.get("from_path", []), (*at, "from_path"))
        parts = cast("list[object]", path) if isinstance(path, list) else [path]
        if not isinstance(path, list) or not all(isinstance(part, str) for part in parts):
            self._read.findings.add((*at, "from_path"), "must be a list of field names", value=parts)
            return None
        if not source or not target:
            return None
        options = self._options(fields, at, workflow)
        segments = tuple(str(part) for part in parts)
        return make_connection(NodeId(source), port, segments, NodeId(target), to_port, **options)

    def _options(self, fields: Mapping[str, object], at: Path, workflow: Workflow) -> dict[str, Any]:
        when = (
            self._read.expression(fields["when"], (*at, "when"), workflow.params)
            if "when" in fields
            else None
        )
        if when is NOTHING:
            when = None
        if when is not None and not isinstance(when, str):
            remedy = "put the expression in quotes" if isinstance(when, bool | int | float) else ""
            self._read.findings.add(
                (*at, "when"), f"must be an expression, not {type_name(when)}", value=when, remedy=remedy
            )
            when = None
        kind = self._read.text(fields, "kind", at)
        if kind is not None and kind not in CONNECTION_KINDS:
            self._read.findings.add(
                (*at, "kind"), f"must be one of {', '.join(CONNECTION_KINDS)}", value=kind
            )
            kind = None
        return {
            "when": when,
            "kind": kind,
            "otherwise": self._read.flag(fields, "else", at, default=False),
            "when_error": self._read.flag(fields, "when_error", at, default=True),
        }
