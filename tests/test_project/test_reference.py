"""scripts/reference.py: every public object of a module appears with its docstring; private ones do not."""

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import griffe
import pytest

ROOT = Path(__file__).resolve().parents[2]
_MODULE = '''"""What it owns.

Pure.
"""

from collections.abc import Sequence

LIMIT: int = 3


class Box:
    """A box of rows."""

    size: int

    async def fill(rows: Sequence[str], *, deep: bool = False) -> None:
        """Put `rows` in.

        Raises:
            ValueError: it is full.
        """

    def _secret(self) -> None: ...
'''


@pytest.fixture(name="reference")
def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_holds_the_public_objects_of_its_module(reference: ModuleType) -> None:
    with griffe.temporary_visited_module(_MODULE, module_name="box") as module:
        text = reference.page(module)
    assert text == (
        "# box\n\nWhat it owns.\n\n```text\nPure.\n```\n\n"
        "## LIMIT\n\n```python\nLIMIT: int = 3\n```\n\n"
        "## Box\n\n```python\nclass Box:\n    size: int\n```\n\nA box of rows.\n\n"
        "### fill\n\n```python\n"
        "async def fill(rows: Sequence[str], *, deep: bool = False) -> None: ...\n```\n\n"
        "Put `rows` in.\n\n```text\nRaises:\n    ValueError: it is full.\n```\n"
    )


def test_a_module_with_nothing_to_say_has_no_page(reference: ModuleType) -> None:
    with griffe.temporary_visited_module("_PRIVATE = 1\n", module_name="empty") as module:
        assert reference.page(module) == ""


def test_a_build_replaces_what_was_there(reference: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "reference"
    target.mkdir()
    (target / "gone.md").write_text("old", encoding="utf-8")
    count = reference.build(target)
    names = {path.name for path in target.iterdir()}
    assert names == {"index.md", *(name for name in names if name.startswith(reference.PACKAGES))}
    assert len(names) == count + 1


def test_the_page_of_a_package_lists_what_programs_import_from_it(
    reference: ModuleType, tmp_path: Path
) -> None:
    target = tmp_path / "reference"
    reference.build(target)
    for package in ("flowcore", "flowruntime", "flowruntime.testing"):
        text = (target / f"{package}.md").read_text(encoding="utf-8")
        names = importlib.import_module(package).__all__
        rows = re.findall(r"^\| \[`(\w+)`\]\(([\w.]+)\.md#(\w+)\) \| (.*) \|$", text, re.MULTILINE)
        assert [name for name, *_ in rows] == sorted(names, key=str.lower)
        for _, home, anchor, summary in rows:
            page = (target / f"{home}.md").read_text(encoding="utf-8")
            assert re.search(rf"^## {anchor}$", page, re.MULTILINE | re.IGNORECASE)
            assert summary or anchor in (
                "crash",
                "end",
                "workflowstate",
                "value",
                "vector",
                "position",
                "event",
            )
