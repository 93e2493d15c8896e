"""Builds the node catalogue from the registry: one Markdown page with every installed node, source and sink.

Owns: the Markdown.
Does not own: what is said of a type: its metadata, made of signature and docstring, as in `flow nodes TYPE`.

    python scripts/catalogue.py docs/reference/nodes.md
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from flowcore.registry import NodeRegistry
from flowruntime.registry import Registry

_HEAD = """# Node catalogue

Built from the registry by `make docs`. `flow nodes` lists the same types, those of your project included;
`flow nodes TYPE` shows one.
"""


def catalogue(registry: NodeRegistry) -> str:
    """The page: a table of contents, then every type by category."""
    found = sorted(
        (dict(registry.factory(name).metadata()) for name in registry.types()),
        key=lambda each: (each["category"], each["type"]),
    )
    contents: list[str] = []
    body: list[str] = []
    for category, types in groupby(found, key=lambda each: str(each["category"])):
        members = list(types)
        names = ", ".join(f"[{each['type']}](#{_anchor(each['type'])})" for each in members)
        contents.append(f"- **{category}**: {names}")
        body += [f"## {category}", *(part for each in members for part in entry(each))]
    return "\n\n".join([_HEAD.strip(), "\n".join(contents), *body]) + "\n"


def entry(metadata: Mapping[str, Any]) -> Iterator[str]:
    """One type: what it is, what goes in and out, what can be configured."""
    yield f"### {metadata['type']}"
    summary, _, rest = str(metadata["description"]).partition("\n\n")
    yield f"{_nature(metadata)}. {' '.join(summary.split())}"
    if rest:
        yield f"```text\n{rest}\n```"
    for title, ports in (("in", metadata["inputs"]), ("out", metadata["outputs"])):
        if ports:
            yield _table((title, "type", ""), [_port(port) for port in ports])
    fields = list(_fields(metadata["config"] or {}))
    if fields:
        yield _table(("config", "kind", "default", ""), fields)
    policies = cast("Mapping[str, Any]", metadata.get("policies") or {})
    if policies:
        said = ", ".join(f"`{name}: {_json(value)}`" for name, value in policies.items())
        yield f"Policies it declares; a workflow may say otherwise: {said}"


def _nature(metadata: Mapping[str, Any]) -> str:
    words = [str(metadata["kind"])]
    if metadata.get("async"):
        words.append("waits")
    if metadata.get("offload"):
        words.append(f"runs in a {metadata['offload']}")
    return ", ".join(words).capitalize()


def _port(port: Mapping[str, Any]) -> Sequence[str]:
    if port.get("gather"):
        need = "all its connections as a list"
    elif port["required"]:
        need = ""
    else:
        need = f"default `{_json(port.get('default'))}`"
    return f"`{port['name']}`", f"`{port['type']}`", need


def _fields(schema: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    required = set(schema.get("required", ()))
    for name, field in cast("Mapping[str, Mapping[str, Any]]", schema.get("properties", {})).items():
        default = "required" if name in required else f"`{_json(field.get('default'))}`"
        yield f"`{name}`", _kind(field), default, str(field.get("description", ""))


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(each) for each in field["anyOf"]))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    kind = field.get("type", "any")
    if kind == "array" and isinstance(field.get("items"), dict):
        return f"list of {_kind(field['items'])}"
    return " or ".join(cast("list[str]", kind)) if isinstance(kind, list) else str(kind)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


def _anchor(title: str) -> str:
    """As a repository's pages make it of a heading."""
    return "".join(sign for sign in title.lower() if sign.isalnum() or sign in "_-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the node catalogue.")
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args(arguments).target
    registry = Registry()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(catalogue(registry), encoding="utf-8")
    print(f"{len(list(registry.types()))} node types in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
