"""FILE on the command line: a workflow file or `module:workflow`, and what the options change in it.

Owns: loading, `--param`, `--set`, `--delivery`, `--profile`, defaults from flow.toml, and the registry that
goes with it.
Does not own: the file format (flowruntime.definition), flow.toml itself (project).

Always holds: what a workflow says itself wins over flow.toml, and an option wins over both. A workflow with
faults is loaded as far as it can be read, so that validating it tells them together with all others.
"""

from __future__ import annotations

import inspect
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from flowcore.binding import bind_draft
from flowcore.draft import rebuilt
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Mark, did_you_mean, near_words, shown
from flowcore.findings import Path as KeyPath
from flowcore.ids import NodeId
from flowcore.plain import from_plain
from flowcore.settings import Settings
from flowcore.workflow import Workflow
from flowruntime.cli.failures import UsageError
from flowruntime.cli.modules import called, imported, is_module, with_folders
from flowruntime.cli.project import Project, project_of
from flowruntime.compile.report import in_order
from flowruntime.definition.files import SUFFIXES
from flowruntime.definition.json import parse_json
from flowruntime.definition.load import load_draft
from flowruntime.registry import Registry

if TYPE_CHECKING:
    from flowcore.profiles import ProfileName
    from flowcore.settings import Delivery

_IN_MODULE: Final = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")
_PAIR: Final = re.compile(r"(?P<name>[^=]+)=(?P<value>.*)", re.DOTALL)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow ready to be validated, planned or run."""

    file: str
    """As given."""
    workflow: Workflow
    """Params bound, options applied; a draft (flowcore.draft) where something is wrong with that."""
    project: Project
    modules: tuple[ModuleType, ...]
    """Of node types beside the installed ones."""
    said_by: Mapping[str, str] = {}
    """For settings the workflow does not say itself: who does, `flow.toml` or an option."""

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
    profile: ProfileName | None = None,
) -> Target:
    """Load FILE with its project, and apply the options.

    Args:
        file: a path, or `module:workflow`.
        nodes: modules of node types, beside those of flow.toml.
        params: `name=value` each.
        overrides: `node.key=value` each.
        delivery: in the place of the workflow's setting.
        profile: likewise.

    Raises:
        ValidationFailedError: nothing of the workflow can be read, or flow.toml is wrong.
        UsageError: there is no such file or module, or an option is malformed.
    """
    workflow, place = _load(file)
    try:
        project = project_of(place)
        modules = project.import_nodes(nodes)
    except ValidationFailedError as fault:  # without these nobody knows which node types there are
        raise ValidationFailedError([*fault.problems, *in_order(workflow.problems)]) from fault
    options = {"delivery": delivery, "profile": profile}
    unsaid = _unsaid(workflow, project)
    chosen = {name: value for name, value in options.items() if value is not None}
    settings = msgspec.structs.replace(workflow.settings, **{**unsaid, **chosen})
    places: dict[KeyPath, Mark] = {}
    configs = _overrides(workflow, overrides, places)
    values = _params(workflow, params, places)
    changed = _with(workflow, settings, configs, places)
    return Target(
        file=file,
        workflow=bind_draft(changed, values),
        project=project,
        modules=tuple(modules),
        said_by={
            **dict.fromkeys(unsaid, "flow.toml"),
            **{name: f"option --{name}" for name in chosen},
        },
    )


# --- loading ---


def _load(file: str) -> tuple[Workflow, Path]:
    """The workflow, and the folder its flow.toml is looked for from."""
    found = _IN_MODULE.fullmatch(file)
    path = Path(file)
    if not file.strip():
        raise UsageError("FILE is empty; name a workflow file, or module:workflow")
    if found is not None and not path.exists():
        return _from_module(file, found["module"], found["name"])
    if path.is_dir():
        names = _workflow_files(path)
        raise UsageError(
            f"{file!r} is a folder; name a workflow file in it{': ' if names else ''}{', '.join(names[:20])}"
        )
    if not path.exists() and not path.is_symlink():
        problem = Problem(
            path="workflow", message="there is no such file", remedy=_meant(file, path), file=file
        )
        raise ValidationFailedError([problem])
    if path.suffix == ".py":
        raise UsageError(f"{file!r} is a Python file; name the workflow in it: {path.stem}:NAME")
    return load_draft(path), path.resolve().parent


def _workflow_files(folder: Path) -> list[str]:
    found = (each for pattern in ("*.yaml", "*.yml", "*.json") for each in folder.glob(pattern))
    return sorted(each.name for each in found if each.is_file())


def _meant(file: str, path: Path) -> str:
    """What a name that is no file was probably meant for."""
    with_folders([Path.cwd()])
    if path.suffix not in SUFFIXES and len(path.parts) == 1 and is_module(file.partition(".")[0]):
        return "to name a workflow in a module, write MODULE:NAME"
    try:
        near = near_words(path.name, _workflow_files(path.parent))
    except OSError:
        near = []
    named = " or ".join(repr(str(path.with_name(each))) for each in near)
    return f"did you mean {named}?" if near else "check the path"


def _from_module(file: str, module_name: str, name: str) -> tuple[Workflow, Path]:
    with_folders([Path.cwd()])
    thing: Any = imported(module_name)
    place = Path(getattr(thing, "__file__", None) or ".").resolve().parent
    for part in name.split("."):
        held = cast("dict[str, object]", vars(thing))
        names = [each for each, value in held.items() if isinstance(value, Workflow)]
        if not hasattr(thing, part):
            raise UsageError(
                f"{module_name!r} has no {part!r}; {did_you_mean(part, names) or 'it holds no workflow'}"
            )
        thing = getattr(thing, part)
    if hasattr(thing, "__flow_node__") or hasattr(thing, "__flow_connector__"):
        raise UsageError(f"{file!r} is a node; give a workflow: Workflow(...).add({name})")
    if inspect.isroutine(thing):
        thing = called(thing, repr(file))
    if not isinstance(thing, Workflow):
        raise UsageError(f"{file!r} is {shown(thing)}, no Workflow and no function that makes one")
    if not thing.marks:
        thing.marks = {(): Mark(file, None)}  # so that problems name it
    return thing, place


# --- options ---


def _params(workflow: Workflow, given: Sequence[str], places: dict[KeyPath, Mark]) -> dict[str, object]:
    """Values by name; where each was given goes to `places`, so that problems name the option."""
    params: dict[str, object] = {}
    for pair in given:
        name, text = _pair("--param", pair, "name=value")
        spec = workflow.params.get(name)
        kind = None if spec is None else spec.effective_kind
        # The text itself where it can be coerced; lists, mappings and values of any kind are read as JSON.
        params[name] = _value(text) if kind in (None, "list", "dict") else text
        places["params", name] = Mark(f"--param {pair}", None)
    return params


def _overrides(
    workflow: Workflow, given: Sequence[str], places: dict[KeyPath, Mark]
) -> dict[str, dict[str, object]]:
    """New configurations by node id; where each value was given goes to `places`."""
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
        places["nodes", node, "config", *parents, last] = Mark(f"--set {pair}", None)
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


def _unsaid(workflow: Workflow, project: Project) -> dict[str, Any]:
    """What flow.toml says and the workflow does not."""
    defaults, said = Settings(), workflow.settings
    return {
        name: getattr(project.settings, name)
        for name in project.said
        if getattr(said, name) == getattr(defaults, name) and ("settings", name) not in workflow.marks
    }


def _with(
    workflow: Workflow,
    settings: Settings,
    configs: Mapping[str, dict[str, object]],
    places: dict[KeyPath, Mark],
) -> Workflow:
    """The workflow with other settings, configurations and places; itself when nothing changes."""
    if settings == workflow.settings and not configs and not places:
        return workflow
    nodes = (
        msgspec.structs.replace(spec, config=configs.get(node_id, spec.config))
        for node_id, spec in workflow.nodes.items()
    )
    made = rebuilt(workflow, nodes=nodes, connections=workflow.connections, settings=settings)
    made.marks = ChainMap(places, dict(workflow.marks))
    return made
