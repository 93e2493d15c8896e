"""flow nodes: the node types workflows may use here; one of them in full."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from flowcore.errors import BuildError
from flowcore.workflow import WORKFLOW_TYPE
from flowruntime.cli.failures import say
from flowruntime.cli.parsing import Flag, Texts
from flowruntime.cli.project import project_of
from flowruntime.cli.streams import print_json
from flowruntime.cli.tables import table
from flowruntime.registry import Registry

_NESTED = """\
workflow  (a workflow as a node)

Its open input ports are ports of the node; its outputs are its nodes, `out` the one nothing inside follows.

Configuration
  file      text     a workflow file, relative to the one that names it; or
  workflow  mapping  the workflow itself
  params    mapping  values for its params"""


def nodes(
    type: str | None = None,
    /,
    *,
    nodes: Texts = None,
    json: Flag = False,
) -> int:
    """List node types by category; with TYPE show its ports, configuration, policies and description.

    Args:
        type: such as text.clean; a category such as text lists its types.
        nodes: module of node types; repeat for more. Those of flow.toml are known anyway.
        json: print metadata as JSON.
    """
    registry = Registry(project_of(Path.cwd()).import_nodes(nodes or ()))
    names = registry.types()
    within = [name for name in names if type is not None and name.startswith(f"{type}.")]
    if type is None or (within and type not in names):
        _print_all(registry, within or names, as_json=json)
        return 0
    if type == WORKFLOW_TYPE:
        print(_NESTED)
        return 0
    metadata = registry.factory(type).metadata()
    if json:
        print_json(_json(metadata))
    else:
        print(_one(metadata))
    return 0


def _print_all(registry: Registry, names: Sequence[str], *, as_json: bool) -> None:
    """Types; one whose module cannot be imported (an extra is missing) is listed with the reason."""
    found: list[Mapping[str, Any]] = []
    for name in names:
        try:
            found.append(registry.factory(name).metadata())
        except BuildError as fault:
            category = name.partition(".")[0]
            found.append(
                {"type": name, "category": category, "kind": "-", "description": f"unusable: {fault}"}
            )
    if as_json:
        print_json(_json(found))
        return
    categories = sorted({str(each["category"]) for each in found})
    parts: list[str] = []
    for category in categories:
        rows = [
            [str(each["type"]), str(each["kind"]), str(each["description"]).partition("\n")[0]]
            for each in found
            if each["category"] == category
        ]
        parts.append(f"{category}\n{table(rows, indent='  ')}")
    print("\n".join(parts))
    counted = f"{len(found)} type{'' if len(found) == 1 else 's'}"
    say(f"\n{counted}; `flow nodes TYPE` shows one in full")


def _one(metadata: Mapping[str, Any]) -> str:
    kind = metadata["kind"]
    coroutine = ", waits" if metadata.get("async") else ""
    offload = f", runs in a {metadata['offload']}" if metadata.get("offload") else ""
    sections = [f"{metadata['type']}  ({kind}{coroutine}{offload})", str(metadata["description"])]
    if metadata["inputs"]:
        sections.append(f"Inputs\n{_ports(metadata['inputs'])}")
    if metadata["outputs"]:
        rows = [[port["name"], port["type"]] for port in metadata["outputs"]]
        sections.append(f"Outputs\n{table(rows, indent='  ')}")
    config = _fields(metadata["config"])
    sections.append(f"Configuration\n{config}" if config else "Configuration: none")
    policies = cast("Mapping[str, Any]", metadata.get("policies") or {})
    if policies:
        rows = [[name, _short(value)] for name, value in policies.items()]
        sections.append(f"Policies it declares (a workflow may say otherwise)\n{table(rows, indent='  ')}")
    return "\n\n".join(sections)


def _ports(ports: Sequence[Mapping[str, Any]]) -> str:
    rows: list[list[str]] = []
    for port in ports:
        need = "required" if port["required"] else f"default {_short(port.get('default'))}"
        rows.append(
            [port["name"], port["type"], "all its connections as a list" if port.get("gather") else need]
        )
    return table(rows, indent="  ")


def _fields(schema: Mapping[str, Any] | None) -> str:
    if not schema:
        return ""
    required = set(schema.get("required", ()))
    rows: list[list[str]] = []
    for name, field in cast("Mapping[str, Mapping[str, Any]]", schema.get("properties", {})).items():
        need = "required" if name in required else f"default {_short(field.get('default'))}"
        rows.append([name, _kind(field), need, str(field.get("description", ""))])
    return table(rows, indent="  ")


def _kind(field: Mapping[str, Any]) -> str:
    """A field's type in a few words."""
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_kind(each) for each in field["anyOf"]))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    kind = field.get("type", "any")
    if kind == "array" and isinstance(field.get("items"), dict):
        return f"list of {_kind(field['items'])}"
    return " | ".join(cast("list[str]", kind)) if isinstance(kind, list) else str(kind)


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


def _json(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, default=repr)
