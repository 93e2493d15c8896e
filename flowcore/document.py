"""Documents: a workflow as plain data, read with every problem found at once.

Owns: the fields of a workflow file, from plain data with marks to a `Workflow`, or to a `Draft` with its
problems.
Does not own: its connections (document_connections), YAML and JSON themselves (flowruntime.definition),
writing (flowcore.dump), whether types, ports and expressions exist (flowruntime.compile).

Always holds: `from_document(to_document(w)) == w`; data of any shape gives a Workflow or a
ValidationFailedError whose problems name path, value and remedy, and the line where marks are given. What is
wrong in one place keeps nothing else from being read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from flowcore.binding import config_params
from flowcore.coercion import coerce
from flowcore.document_connections import read_connections
from flowcore.draft import UNREADABLE, Draft
from flowcore.errors import CoercionError, Problem
from flowcore.fields import FieldReader, Params
from flowcore.findings import Findings, Mark, MarksUnder, Path, Refused
from flowcore.ids import NodeId, node_id_fault, suggest_node_id
from flowcore.policies import POLICY_NAMES, NodePolicies
from flowcore.settings import PARAM_KINDS, ParamSpec, Settings, param_name_fault
from flowcore.shapes import read_sound, type_name
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

_STRAY: Final = "what belongs to the node's type goes under config: config: {{}: ...}"


class Fault(msgspec.Struct, frozen=True):
    """What a reader of files found before the document was read: a key given twice, a file that is not there.

    What stands at `place` is taken as unknown.
    """

    place: Path
    problem: Problem


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
    return read_document(data, env=env, marks=marks, file=file).finished()


def read_document(
    data: object,
    *,
    env: Mapping[str, str] | None = None,
    marks: Mapping[Path, Mark] | None = None,
    file: str | None = None,
    faults: Iterable[Fault] = (),
) -> Draft:
    """Read plain data as far as it can be read: the rest of the workflow can then be checked as well.

    Args:
        data: as for `from_document`.
        env: as for `from_document`.
        marks: as for `from_document`.
        file: as for `from_document`.
        faults: found on the way to `data`.

    Returns:
        The draft; `problems` lists everything wrong with its form, and is empty when `finished` gives the
        workflow.
    """
    found = list(faults)
    findings = Findings(marks=marks, file=file, refused=Refused(fault.place for fault in found))
    places: Mapping[Path, Mark] = {} if marks is None else marks
    draft = _Reader(FieldReader(findings, env or {}), places, (), depth=1).workflow(data)
    told = (*(fault.problem for fault in found), *findings.problems)
    draft.problems = tuple(dict.fromkeys(told))  # a key that is there three times on one line is so twice
    _tell_refused(draft, findings.refused)
    return draft


def _tell_refused(draft: Workflow, refused: Refused) -> None:
    """Give the draft and those inside it what was refused of each."""
    draft.refused = refused
    for spec in draft.nodes.values():
        if spec.workflow is not None:
            _tell_refused(spec.workflow, refused.under(("nodes", spec.id, "config", "workflow")))


def _is_node(given: object) -> bool:
    return isinstance(given, dict) and "type" in given


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
        self._findings: Final = read.findings
        self._marks: Final = marks
        self._path: Final = path
        self._depth: Final = depth

    # --- the whole ------------------------------------------------------------------------------------

    def workflow(self, data: object) -> Draft:
        at = self._path
        if data is None:
            self._findings.add(at, "is empty", remedy="begin with name: ... and nodes: ...")
        fields = self._read.mapping(
            self._with_nodes_in_place(data), at, WORKFLOW_FIELDS, what="workflow field"
        )
        name = self._read.text(fields, "name", at, required=True)
        identity = self._read.text(fields, "id", at)
        draft = Draft(
            name or "unnamed",
            id=identity or None,
            version=self._read.text(fields, "version", at) or "1",
            description=self._read.text(fields, "description", at, empty=True) or "",
            params=self._params(fields.get("params", {})),
            settings=self._settings(fields.get("settings", {}), (*at, "settings")),
        )
        params = Params(draft.params, (*at, "params"))
        self._nodes(fields.get("nodes", {}), draft, params)
        read_connections(fields.get("connections", []), at, draft, params, self._read)
        draft.marks = MarksUnder(self._marks, self._path) if self._path else self._marks
        return draft

    def _with_nodes_in_place(self, data: object) -> object:
        """The data without nodes that stand beside an empty `nodes`, where they were meant to be."""
        if not isinstance(data, dict):
            return data
        fields = cast("dict[str, object]", data)
        beside = [
            name
            for name, value in fields.items()
            if name not in WORKFLOW_FIELDS and isinstance(value, dict) and "type" in value
        ]
        if "nodes" not in fields or fields["nodes"] or not beside:
            return fields
        at = (*self._path, "nodes")
        named = ", ".join(map(repr, beside[:3])) + (", ..." if len(beside) > 3 else "")  # noqa: PLR2004 - enough
        self._findings.add(
            at, f"is empty, and nodes stand beside it: {named}", remedy="indent them one step further"
        )
        return {name: value for name, value in fields.items() if name not in beside}

    def _settings(self, data: object, at: Path) -> Settings:
        said = dict(cast("dict[object, object]", data)) if isinstance(data, dict) else {}
        place = said.get("dead_letter")
        if not isinstance(place, dict) or "config" not in place:
            return self._declared_settings(self._read.plain(cast("object", data), at), at)
        # The configuration of a sink, read as a node's is.
        fields = dict(cast("dict[object, object]", place))
        config = self._read.constant(fields.pop("config"), (*at, "dead_letter", "config"))
        plain = cast("dict[str, dict[str, object]]", self._read.plain({**said, "dead_letter": fields}, at))
        plain["dead_letter"]["config"] = config
        return self._declared_settings(plain, at)

    def _declared_settings(self, plain: object, at: Path) -> Settings:
        return read_sound(Settings, plain, at, self._findings)

    def _params(self, data: object) -> dict[str, ParamSpec]:
        at = (*self._path, "params")
        params: dict[str, ParamSpec] = {}
        for name, given in self._read.mapping(data, at).items():
            fault = param_name_fault(name)
            if fault is not None:
                self._findings.add((*at, name), f"param name {fault}", value=name)
                continue
            params[name] = self._param(given, (*at, name))
        return params

    def _param(self, given: object, at: Path) -> ParamSpec:
        if given is None:
            remedy = "write {default: null}, or {kind: str} for a param that must be given"
            self._findings.add(at, "a param is a default value or a mapping, not null", remedy=remedy)
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
            self._findings.add((*at, "kind"), f"must be one of {', '.join(PARAM_KINDS)}", value=kind)
            return ParamSpec()
        description = self._read.text(fields, "description", at, empty=True) or ""
        spec = ParamSpec(default=default, kind=cast("Any", kind), description=description)
        if kind is not None and default is not msgspec.UNSET and default is not None:
            try:
                coerce(default, spec.kind or "str")
            except CoercionError as fault:
                self._findings.add(
                    (*at, "default"), f"must be of kind {kind}", value=default, remedy=str(fault)
                )
        return spec

    # --- nodes ----------------------------------------------------------------------------------------

    def _nodes(self, data: object, draft: Draft, params: Params) -> None:
        at = (*self._path, "nodes")
        if isinstance(data, list):
            remedy = "write them by id: nodes: {clean: {type: text.clean}}"
            given = cast("list[object]", data)
            self._findings.add(at, "must be a mapping, not a list", value=given, remedy=remedy)
            return
        nodes = self._read.mapping(data, at)
        if not nodes and not self._findings.refuses(at):
            self._findings.add(
                at, "a workflow needs at least one node", remedy="add one: nodes: {clean: {type: text.clean}}"
            )
        if len(nodes) > MAX_NODES:
            self._findings.add(
                at, f"has {len(nodes)} nodes, more than {MAX_NODES}", remedy="split it into nested workflows"
            )
            return
        strays = self._strays(nodes, at)
        for name, given in nodes.items():
            if name in strays:
                continue
            fault = node_id_fault(name)
            if fault is not None and ":" in name and given is None:
                before, _, after = name.partition(":")
                remedy = f"write {before}: {after}"
                self._findings.add((*at, name), "a blank is missing after ':'", value=name, remedy=remedy)
            elif fault is not None:
                remedy = f"{str(suggest_node_id(name))!r} would do"
                self._findings.add(
                    (*at, name), f"node id {fault}", value=name, remedy=remedy, sound=True
                )  # what the node is can be checked all the same
            draft.add_node(self._node(NodeId(name), given, (*at, name), params))

    def _strays(self, nodes: Mapping[str, object], at: Path) -> set[str]:
        """What stands among the nodes at the wrong indentation: fields of the workflow, or of a node."""
        strays = {name for name in nodes if name in ("connections", "nodes") and name in WORKFLOW_FIELDS}
        strays = {name for name in strays if not _is_node(nodes[name])}
        for name in strays:
            self._findings.add(
                (*at, name), f"{name!r} stands among the nodes", remedy=f"indent it less: beside {at[-1]}"
            )
            self._findings.refuse((*self._path, name))
        before = ""
        fields: dict[str, list[str]] = {}
        for name, given in nodes.items():
            if before and name in NODE_FIELDS and not _is_node(given):
                fields.setdefault(before, []).append(name)
            else:
                before = name
        for node, names in fields.items():
            self._tell_stray_fields((*at, node), nodes[node], names)
        return strays | {name for names in fields.values() for name in names}

    def _tell_stray_fields(self, at: Path, given: object, names: Sequence[str]) -> None:
        """Note the fields of a node that stand beside it instead of in it."""
        stand = f"{', '.join(map(repr, names))} below it {'stands' if len(names) == 1 else 'stand'}"
        message = (
            f"{stand} among the nodes" if given is not None else f"is empty, and {stand} among the nodes"
        )
        self._findings.add(at, message, remedy="indent what belongs to it one step further", sound=True)
        for name in names if given is not None else ("",):
            self._findings.refuse((*at, name) if name else at)

    def _node(self, node_id: NodeId, given: object, at: Path, params: Params) -> NodeSpec:
        if isinstance(given, str):
            given = {"type": given}
        if not isinstance(given, dict):
            if not self._findings.refuses(at):
                message = f"must be a mapping, not {type_name(given)}"
                remedy = f"give it a type: {node_id}: {{type: text.clean}}"
                self._findings.add(at, message, value=given, remedy=remedy)
            return NodeSpec(id=node_id, type=UNREADABLE)
        fields = self._read.mapping(cast("object", given), at, NODE_FIELDS, what="node field", hint=_STRAY)
        for name in cast("dict[str, object]", given):
            if name not in NODE_FIELDS:  # may be of the configuration, which is then not complete
                self._findings.refuse((*at, "config", name))
        policies = self._policies(fields, at, params)
        description = self._read.text(fields, "description", at, empty=True) or ""
        kind = self._type(fields, at)
        inner: Draft | None = None
        if kind == WORKFLOW_TYPE:
            inner, config = self._inner(fields.get("config", {}), (*at, "config"), params)
            kind = UNREADABLE if inner is None else kind
        else:
            config = self._config(fields.get("config", {}), (*at, "config"), params)
        return NodeSpec(
            id=node_id,
            type=kind,
            config=config,
            policies=policies,
            description=description,
            workflow=inner,
        )

    def _type(self, fields: Mapping[str, object], at: Path) -> str:
        kind = self._read.text(fields, "type", at, required=True) or UNREADABLE
        if kind and any(node_id_fault(part) for part in kind.split(".")):
            self._findings.add(
                (*at, "type"), "is no node type", value=kind, remedy="write it like 'text.clean'"
            )
        return UNREADABLE if self._findings.refuses((*at, "type")) else kind

    def _config(self, data: object, at: Path, params: Params) -> dict[str, object]:
        if self._read.is_form(data):
            self._findings.add(at, "must be a mapping of the node type's fields", value=data)
            return {}
        if not isinstance(data, dict):
            return self._read.mapping(data, at)
        config = cast("dict[str, object]", self._read.value(cast("object", data), at) or {})
        self._read.declared(config_params(config, at), params)
        return config

    def _policies(self, fields: Mapping[str, object], at: Path, params: Params) -> NodePolicies:
        said = {
            name: self._read.plain(fields[name], (*at, name))
            for name in POLICY_NAMES
            if name in fields and name not in ("key", "on_error")
        }
        if "on_error" in fields:
            said["on_error"] = self._on_error(fields["on_error"], (*at, "on_error"), params)
        if "key" in fields:
            said["key"] = self._read.expression(fields["key"], (*at, "key"), params)
        return read_sound(NodePolicies, said, at, self._findings)

    def _on_error(self, data: object, at: Path, params: Params) -> object:
        """A word, or what is done; a fallback is a value, as those of a configuration are."""
        if not isinstance(data, dict) or "fallback" not in data:
            return self._read.plain(cast("object", data), at)
        given = cast("dict[str, object]", data)
        others = {name: each for name, each in given.items() if name != "fallback"}
        value = {"fallback": self._read.value(given["fallback"], (*at, "fallback"))}
        self._read.declared(config_params(value, at), params)
        return {**self._read.mapping(self._read.plain(others, at), at), **value}

    def _inner(self, data: object, at: Path, params: Params) -> tuple[Draft | None, dict[str, object]]:
        fields = self._read.mapping(data, at, (*INNER_FIELDS, "file"), what="field of a workflow node")
        given: dict[str, object] = {}
        if "params" in fields:
            given["params"] = self._config(fields["params"], (*at, "params"), params)
        if "file" in fields:
            message, remedy = "stands beside a workflow", "keep one of the two"
            if "workflow" not in fields:
                message = "can only be followed from a file"
                remedy = "load the outer workflow from a file, or write the inner one under config.workflow"
            self._findings.add((*at, "file"), message, value=fields["file"], remedy=remedy)
            return None, given
        if "workflow" not in fields:
            if not self._findings.refuses((*at, "workflow")) and not self._findings.refuses((*at, "file")):
                remedy = "write it under config.workflow, or name its file in config.file"
                self._findings.add(at, "a node of type 'workflow' needs its workflow", remedy=remedy)
            return None, given
        if self._depth >= MAX_NESTING:
            self._findings.add(at, f"workflows nest at most {MAX_NESTING} deep")
            return None, given
        reader = _Reader(self._read, self._marks, (*at, "workflow"), depth=self._depth + 1)
        return reader.workflow(fields["workflow"]), given
