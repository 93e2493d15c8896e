"""flow nodes: the node types workflows may use here; one of them in full."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

from flowcore.errors import BuildError
from flowruntime.cli.project import project_of
from flowruntime.cli.tables import table
from flowruntime.registry import Registry

Texts = Annotated[list[str] | None, Parameter(negative="")]


def nodes(
    type: str | None = None,
    /,
    *,
    nodes: Texts = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List node types by category; with TYPE show its ports, configuration, policies and description.

    Args:
        type: such as text.clean.
        nodes: module of node types; repeat for more. Those of flow.toml are known anyway.
        json: print metadata as JSON.
    """
    registry = Registry(project_of(Path.cwd()).import_nodes(nodes or ()))
    if type is None:
        _print_all(registry, as_json=json)
        return 0
    metadata = registry.factory(type).metadata()
    print(_json(metadata) if json else _one(metadata))
    return 0


def _print_all(registry: Registry, *, as_json: bool) -> None:
    """All types; one whose module cannot be imported (an extra is missing) is listed with the reason."""
    found: list[Mapping[str, Any]] = []
    for name in registry.types():
        try:
            found.append(registry.factory(name).metadata())
        except BuildError as fault:
            category = name.partition(".")[0]
            found.append(
                {"type": name, "category": category, "kind": "-", "description": f"unusable: {fault}"}
            )
    if as_json:
        print(_json(found))
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
    print(f"\n{len(found)} types; `flow nodes TYPE` shows one in full", file=sys.stderr)


def _one(metadata: Mapping[str, Any]) -> str:
    kind = metadata["kind"]
    coroutine = ", waits" if metadata.get("async") else ""
    offload = f", runs in a {metadata['offload']}" if metadata.get("offload") else ""
    sections = [f"{metadata['type']}  ({kind}{coroutine}{offload})", str(metadata["description"])]
    for title, ports in (("Inputs", metadata["inputs"]), ("Outputs", metadata["outputs"])):
        if ports:
            sections.append(f"{title}\n{_ports(ports)}")
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
