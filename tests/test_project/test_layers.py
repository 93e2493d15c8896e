"""The layers, beyond what import-linter can say: allow-lists, calls, `__init__` files, cycles."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flowcore", "flowruntime", "flownodes", "connectors")


def _sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _clock_or_io(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Calls such as `datetime.now()` and `open()`; a method of ours that is named `open` is not meant."""
    for item in ast.walk(tree):
        match item:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime" | "date" as owner), attr=name)):
                if name in {"now", "utcnow", "today"}:
                    yield item.lineno, f"{owner}.{name}()"
            case ast.Call(func=ast.Name(id="open" | "print" | "input" as name)):
                yield item.lineno, f"{name}()"
            case _:
                pass


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_flowcore_imports_msgspec_and_nothing_else_from_outside() -> None:
    graph = grimp.build_graph("flowcore", include_external_packages=True, cache_dir=None)
    outside = {name for name in graph.modules if name.split(".")[0] != "flowcore"}
    assert outside - set(sys.stdlib_module_names) - {"msgspec"} == set()


def test_flowcore_reads_no_clock_and_opens_nothing() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {call}"
        for path, tree in _sources("flowcore")
        for line, call in _clock_or_io(tree)
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_inside_a_package_imports_from_its_init(package: str) -> None:
    """`from flowcore import Frame` inside flowcore ties all its modules into one knot."""
    found = [
        f"{path.relative_to(ROOT)}:{item.lineno}: from {item.module} import {alias.name}"
        for path, tree in _sources(package)
        if path.name != "__init__.py"
        for item in ast.walk(tree)
        if isinstance(item, ast.ImportFrom) and item.module is not None and item.level == 0
        for alias in item.names
        if item.module.split(".")[0] == package
        and ROOT.joinpath(*item.module.split(".")).is_dir()
        and not _is_module(f"{item.module}.{alias.name}")
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_an_init_file_only_re_exports(package: str) -> None:
    """Imports, `__all__` and a docstring; a `__getattr__` that imports on first use counts as a re-export."""
    allowed = (ast.Import, ast.ImportFrom)
    found = [
        f"{path.relative_to(ROOT)}:{item.lineno}: {type(item).__name__}"
        for path, tree in _sources(package)
        if path.name == "__init__.py"
        for item in tree.body
        if not isinstance(item, allowed) and not _is_docstring_or_export(item)
    ]
    assert found == []


def _is_docstring_or_export(item: ast.stmt) -> bool:
    match item:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name.startswith("_")
        case ast.FunctionDef(name=name):
            return name in {"__getattr__", "__dir__"}
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case _:
            return False


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    imports: dict[str, Any] = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(
            f"import cycle: {' <- '.join(error.args[1])}; move what both need into a module below them"
        )


def test_no_package_below_tests() -> None:
    """Test files are imported by path (importlib mode); an `__init__.py` would give two of them one name."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_tells_type_checkers_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
