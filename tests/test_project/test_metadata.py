"""pyproject.toml, uv.lock and the packages say the same."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRIES = [
    pytest.param(target, id=f"{group}:{name}")
    for group, entries in PROJECT["entry-points"].items()
    for name, target in entries.items()
]


@pytest.mark.parametrize("target", [*ENTRIES, pytest.param(PROJECT["scripts"]["flow"], id="flow")])
def test_every_entry_point_leads_somewhere(target: str) -> None:
    module, _, attribute = target.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if attribute:
        assert hasattr(importlib.import_module(module), attribute)


def test_every_namespace_of_nodes_and_connectors_is_an_entry_point() -> None:
    """A folder without an entry point would be nodes nobody can name."""
    for package, group in (("flownodes", "flowrx.nodes"), ("connectors", "flowrx.connectors")):
        folders = {path.parent.name for path in (ROOT / package).glob("*/*.py") if _is_public(path)}
        named = {target.split(".")[1] for target in PROJECT["entry-points"][group].values()}
        no_namespace = {"flownodes": {"llm"}, "connectors": {"formats"}}  # providers; what connectors share
        assert folders - named <= no_namespace[package]


def _is_public(path: Path) -> bool:
    return not path.parent.name.startswith("_")


def test_the_lock_names_the_public_index_only() -> None:
    """A mirror's address in uv.lock would stop everyone else."""
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_first_line_of_every_module_is_its_header() -> None:
    """What it owns, what it does not, what always holds; an `__init__.py` needs none."""
    bare = [
        str(path.relative_to(ROOT))
        for package in (
            "flowcore",
            "flowruntime",
            "flownodes",
            "connectors",
            "scripts",
            "examples",
            "benchmarks",
        )
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
        and not path.read_text(encoding="utf-8")
        .removeprefix("#!/usr/bin/env python3\n")
        .startswith(('"""', 'r"""'))
    ]
    assert bare == []
