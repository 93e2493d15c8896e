"""Builds the API reference from the docstrings: one Markdown page per module, and an index.

Owns: which objects appear (public ones, defined in the module), in the order of the source; the Markdown.
Does not own: the words; they are the docstrings. Nothing is imported, so no extra needs to be installed.

    python scripts/reference.py docs/reference
"""

import argparse
import inspect
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import griffe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flowcore", "flowruntime", "flownodes", "connectors")
_INDEX = """# API reference

Built from the docstrings by `make docs`, like the [node catalogue](nodes.md).

| what programs import | |
|---|---|
| [flowcore](flowcore.md) | to write nodes, workflows and connectors with |
| [flowruntime](flowruntime.md) | to run workflows with |
| [flowruntime.testing](flowruntime.testing.md) | to test them with |
| [flowcore.errors](flowcore.errors.md) | what is raised |

All modules, for who reads or changes the code:
"""
_TYPE_VARIABLES = ("TypeVar(", "ParamSpec(", "TypeVarTuple(")


def public_modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """`module` and all modules below it whose names do not begin with an underscore, by name."""
    yield module
    for name in sorted(module.modules):
        if not name.startswith("_"):
            yield from public_modules(module.modules[name])


def page(module: griffe.Module) -> str:
    """The page of one module; empty when it has neither a docstring nor a public object."""
    body = [text for member in _own(module) for text in _entry(member, level=2)]
    header = module.docstring.value if module.docstring else ""
    if not header and not body:
        return ""
    return "\n\n".join([f"# {module.path}", *_prose(header), *_exported(module), *body]) + "\n"


def _exported(module: griffe.Module) -> Iterator[str]:
    """What a package gives its users under its own name: each with its summary, and where it stands."""
    if not module.is_init_module or not module.exports:
        return
    rows = [f"| {_named(module, str(name))} |" for name in sorted(map(str, module.exports), key=str.lower)]
    yield "\n".join([f"`from {module.path} import ...`", "", "| name | |", "|---|---|", *rows])


def _named(module: griffe.Module, name: str) -> str:
    member = module.members.get(name)
    if member is not None and member.is_module:  # a function with the name of its module
        member = member.members.get(name)
    if member is None:
        return f"`{name}` | "
    found = member.final_target if isinstance(member, griffe.Alias) else member
    docstring = found.docstring.value if found.docstring else ""
    summary = " ".join(inspect.cleandoc(docstring).partition("\n\n")[0].split()).replace("|", "\\|")
    home = found.parent.path if found.parent is not None else module.path
    return f"[`{name}`]({home}.md#{found.name.lower()}) | {summary}"


def _own(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """Public members defined here, in the order of the source; what is imported belongs to another page."""
    for name, member in parent.members.items():
        if name.startswith("_") or isinstance(member, griffe.Alias) or member.is_module:
            continue
        if isinstance(member, griffe.Attribute) and str(member.value).startswith(_TYPE_VARIABLES):
            continue
        yield member


def _entry(member: griffe.Object, level: int) -> Iterator[str]:
    yield f"{'#' * level} {member.name}"
    yield f"```python\n{_signature(member)}\n```"
    yield from _prose(member.docstring.value if member.docstring else "")
    if isinstance(member, griffe.Class):
        for inner in _own(member):
            if isinstance(inner, griffe.Function | griffe.Class) or inner.docstring:
                yield from _entry(inner, level + 1)


def _signature(member: griffe.Object) -> str:
    match member:
        case griffe.Class():
            bases = ", ".join(str(base) for base in member.bases)
            head = f"class {member.name}({bases}):" if bases else f"class {member.name}:"
            return "\n    ".join([head, *(_construction(member) or ["..."])])
        case griffe.Function():
            prefix = "async def" if "async" in member.labels else "def"
            return "\n".join(
                [*(f"@{mark.value}" for mark in member.decorators), f"{prefix} {member.signature()}: ..."]
            )
        case griffe.Attribute():
            return _attribute(member)
        case _:
            return member.name


def _construction(member: griffe.Class) -> list[str]:
    """How an object is made: the signature of `__init__`, else the fields of the class body."""
    init = member.members.get("__init__")
    if isinstance(init, griffe.Function):
        return [f"def {init.signature()}: ..."]
    return [
        _attribute(inner)
        for inner in _own(member)
        if isinstance(inner, griffe.Attribute) and not _is_property(inner)
    ]


def _is_property(attribute: griffe.Attribute) -> bool:
    return "property" in attribute.labels or "cached-property" in attribute.labels


def _attribute(attribute: griffe.Attribute) -> str:
    annotation = f": {attribute.annotation}" if attribute.annotation is not None else ""
    has_default = bool(
        attribute.labels & {"module-attribute", "class-attribute"}
    )  # else __init__ computes it
    value = f" = {attribute.value}" if has_default and attribute.value is not None else ""
    return f"{attribute.name}{annotation}{value}"


def _prose(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: its summary as text, the rest as written, so pictures keep their columns."""
    summary, _, rest = inspect.cleandoc(docstring).partition("\n\n")
    if summary:
        yield summary
    if rest:
        yield f"```text\n{rest}\n```"


def build(target: Path) -> int:
    """Write the whole reference into `target`, replacing what is there; returns the number of pages."""
    pages: dict[str, str] = {}
    for package in PACKAGES:
        root = griffe.load(package, search_paths=[str(ROOT)], resolve_aliases=True)
        for module in public_modules(cast("griffe.Module", root)):  # a package is never an alias or a class
            if text := page(module):
                pages[module.path] = text
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for name, text in pages.items():
        (target / f"{name}.md").write_text(text, encoding="utf-8")
    links = "\n".join(f"- [{name}]({name}.md)" for name in pages)
    (target / "index.md").write_text(f"{_INDEX}\n{links}\n", encoding="utf-8")
    return len(pages)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the API reference.")
    parser.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    count = build(options.target)
    print(f"{count} pages in {options.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
