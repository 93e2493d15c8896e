"""FILE on the command line: a workflow file or `module:workflow`, and what the options change in it.

Owns: loading, `--param`, `--set`, `--delivery`, defaults from flow.toml, and the registry that goes with it.
Does not own: the file format (flowruntime.definition), flow.toml itself (project).

Always holds: what a workflow says itself wins over flow.toml, and an option wins over both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from flowcore.binding import bind_params
from flowcore.errors import ValidationFailedError
from flowcore.findings import did_you_mean, shown
from flowcore.ids import NodeId
from flowcore.plain import from_plain
from flowcore.settings import Settings
from flowcore.workflow import Workflow
from flowruntime.cli.failures import UsageError
from flowruntime.cli.project import Project, project_of, with_folders
from flowruntime.definition.json import parse_json
from flowruntime.definition.load import load_workflow
from flowruntime.registry import Registry

if TYPE_CHECKING:
    from flowcore.settings import Delivery

_IN_MODULE: Final = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")
_PAIR: Final = re.compile(r"(?P<name>[^=]+)=(?P<value>.*)", re.DOTALL)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow ready to be validated, planned or run."""

    file: str
    """As given."""
    workflow: Workflow
    """Params bound, options applied."""
    project: Project
    modules: tuple[ModuleType, ...]
    """Of node types beside the installed ones."""

    def registry(self) -> Registry:
        """Installed types and those of the project."""
        return Registry(self.modules)


def load_target(
    file: str,
    *,
    nodes: Sequence[str] = (),
    params: Sequence[str] = (),
    overrides: Sequence[str] = (),
    delivery: Delivery | None = None,
) -> Target:
    """Load FILE with its project, and apply the options.

    Args:
        file: a path, or `module:workflow`.
        nodes: modules of node types, beside those of flow.toml.
        params: `name=value` each.
        overrides: `node.key=value` each.
        delivery: in the place of the workflow's setting.

    Raises:
        ValidationFailedError: the workflow, flow.toml or an option's value is wrong.
        UsageError: there is no such file or module, or an option is malformed.
    """
    workflow, place = _load(file)
    project = project_of(place)
    modules = project.import_nodes(nodes)
    settings = _settings(workflow, project, delivery)
    changed = _with(workflow, settings, _overrides(workflow, overrides))
    return Target(
        file=file,
        workflow=bind_params(changed, _params(workflow, params)),
        project=project,
        modules=tuple(modules),
    )


# --- loading ---


def _load(file: str) -> tuple[Workflow, Path]:
    """The workflow, and the folder its flow.toml is looked for from."""
    found = _IN_MODULE.fullmatch(file)
    path = Path(file)
    if found is not None and not path.exists():
        return _from_module(file, found["module"], found["name"])
    if path.is_dir():
        files = sorted(each.name for each in path.glob("*.y*ml"))
        raise UsageError(
            f"{file!r} is a folder; name a workflow file in it{': ' if files else ''}{', '.join(files)}"
        )
    return load_workflow(path), path.resolve().parent


def _from_module(file: str, module_name: str, name: str) -> tuple[Workflow, Path]:
    with_folders([Path.cwd()])
    try:
        thing: Any = import_module(module_name)
    except Exception as fault:
        kind = "" if isinstance(fault, ImportError) else f"{type(fault).__name__}: "
        raise UsageError(f"module {module_name!r} of {file!r} cannot be imported: {kind}{fault}") from fault
    place = Path(getattr(thing, "__file__", None) or ".").resolve().parent
    for part in name.split("."):
        held = cast("dict[str, object]", vars(thing))
        names = [each for each, value in held.items() if isinstance(value, Workflow)]
        if not hasattr(thing, part):
            raise UsageError(
                f"{module_name!r} has no {part!r}; {did_you_mean(part, names) or 'it holds no workflow'}"
            )
        thing = getattr(thing, part)
    if callable(thing) and not isinstance(thing, Workflow):
        thing = thing()
    if not isinstance(thing, Workflow):
        raise UsageError(f"{file!r} is {shown(thing)}, no Workflow and no function that makes one")
    return thing, place


# --- options ---


def _params(workflow: Workflow, given: Sequence[str]) -> dict[str, object]:
    params: dict[str, object] = {}
    for pair in given:
        name, text = _pair("--param", pair, "name=value")
        spec = workflow.params.get(name)
        kind = None if spec is None else spec.effective_kind
        # The text itself where it can be coerced; lists, mappings and values of any kind are read as JSON.
        params[name] = _value(text) if kind in (None, "list", "dict") else text
    return params


def _overrides(workflow: Workflow, given: Sequence[str]) -> dict[str, dict[str, object]]:
    """New configurations by node id."""
    configs: dict[str, dict[str, object]] = {}
    for pair in given:
        place, text = _pair("--set", pair, "node.key=value")
        node, _, key = place.partition(".")
        if node not in workflow.nodes:
            raise UsageError(
                f"--set {pair!r}: there is no node {node!r}; {did_you_mean(node, workflow.nodes)}"
            )
        if not key or not all(key.split(".")):
            raise UsageError(f"--set {pair!r}: name a configuration field: --set {node}.field=value")
        config = configs.setdefault(node, _copied(workflow.nodes[NodeId(node)].config))
        *parents, last = key.split(".")
        for parent in parents:
            inner = config.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UsageError(f"--set {pair!r}: {node}.{parent} is {shown(inner)}, which has no fields")
            config = cast("dict[str, object]", inner)
        config[last] = _value(text)
    return configs


def _copied(config: Mapping[str, Any]) -> dict[str, object]:
    def copy(value: object) -> object:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in cast("dict[str, object]", value).items()}
        return value

    return {key: copy(value) for key, value in config.items()}


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    found = _PAIR.fullmatch(text)
    if found is None:
        raise UsageError(f"{option} takes {form}, got {text!r}")
    return found["name"].strip(), found["value"]


def _value(text: str) -> object:
    """What an option's text stands for: a JSON value, or else the text itself."""
    try:
        data, _ = parse_json(text)
    except ValidationFailedError:
        return text
    return from_plain(data)


def _settings(workflow: Workflow, project: Project, delivery: Delivery | None) -> Settings:
    defaults, said = Settings(), workflow.settings
    unsaid = {
        name: getattr(project.settings, name)
        for name in project.said
        if getattr(said, name) == getattr(defaults, name) and ("settings", name) not in workflow.marks
    }
    if delivery is not None:
        unsaid["delivery"] = delivery
    return msgspec.structs.replace(said, **unsaid)


def _with(workflow: Workflow, settings: Settings, configs: Mapping[str, dict[str, object]]) -> Workflow:
    """The workflow with other settings and configurations; itself when nothing changes."""
    if settings == workflow.settings and not configs:
        return workflow
    made = Workflow(
        workflow.name,
        id=workflow.id,
        version=workflow.version,
        description=workflow.description,
        params=workflow.params,
        settings=settings,
    )
    made.local_types.update(workflow.local_types)
    made.marks = workflow.marks
    for node_id, spec in workflow.nodes.items():
        made.add_node(msgspec.structs.replace(spec, config=configs.get(node_id, spec.config)))
    for connection in workflow.connections:
        made.add_connection(connection)
    return made
