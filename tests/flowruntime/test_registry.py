"""The registry: types found by entry point or registered by hand, imported when first asked for."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from flowcore.connector import Rows, Sink
from flowcore.context import NodeContext
from flowcore.definition import NodeDefinition
from flowcore.errors import (
    ConfigError,
    DefinitionError,
    DuplicateNodeTypeError,
    UnknownNodeTypeError,
)
from flowcore.expression import Expression
from flowcore.node import Node, node
from flowcore.operator import operator
from flowruntime.compile.applicable import misplaced
from flowruntime.discovery import Namespaces, NodeImportError, ShadowedPackageError, check_connectors_package
from flowruntime.registry import Overlay, Registry

EMPTY = Namespaces(())


@node("text.clean")
def clean(text: str, *, lower: bool = True) -> str:
    """Tidies text."""
    return text.strip().lower() if lower else text.strip()


@node("demo.keep", kind="filter", computes="when")
def keep(value: object, *, when: Expression) -> bool:
    return bool(when(value=value))


class AddConfig(msgspec.Struct):
    by: Annotated[int, Meta(ge=1)] = 1


class AddIn(msgspec.Struct):
    value: int


class Add(Node[AddConfig, AddIn, int], type="demo.add"):
    def execute(self, inputs: AddIn, ctx: NodeContext) -> int:
        return inputs.value + self.config.by


class Silent(Sink[AddConfig, str], type="demo.sink"):
    async def write(self, batch: Rows[str]) -> Mapping[int, Exception]:
        return {}


@operator("demo.same", settles="explicit")
def same(config: AddConfig) -> Any:
    return lambda source: (source, config.by)  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespaces]:
    """A package `made_nodes` with two node modules, a helper and one that needs what is not installed."""
    folder = tmp_path / "made_nodes"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    sources = {
        "up": '@node("made.up")\ndef up(text: str) -> str:\n    return text.upper()\n',
        "down": "@node('made.down')\ndef down(text: str) -> str:\n    return text\n",
        "helper": "VALUE = 1\n",
        "heavy": 'import no_such_library\n@node("made.heavy")\ndef heavy(x: int) -> int: ...\n',
        "wrong": '# "made.wrong"\n@node("made.other")\ndef other(x: int) -> int: ...\n',
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(f"from flowcore.node import node\n{source}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield Namespaces([("made", "made_nodes")])
    for name in [name for name in sys.modules if name.startswith("made_nodes")]:
        del sys.modules[name]


def test_types_are_listed_without_importing_them(package: Namespaces) -> None:
    registry = Registry([clean], namespaces=package)
    assert registry.types() == ["made.down", "made.heavy", "made.up", "made.wrong", "text.clean"]
    assert "made_nodes.up" not in sys.modules


def test_a_type_is_imported_when_first_asked_for(package: Namespaces) -> None:
    registry = Registry(namespaces=package)
    assert registry.factory("made.up").create({})("x") == "X"
    assert "made_nodes.up" in sys.modules
    assert "made_nodes.down" not in sys.modules


def test_a_missing_library_is_named(package: Namespaces) -> None:
    with pytest.raises(NodeImportError, match=r"made\.heavy.*'no_such_library' is missing"):
        Registry(namespaces=package).factory("made.heavy")


def test_a_module_must_declare_the_type_it_is_named_after(package: Namespaces) -> None:
    with pytest.raises(DefinitionError, match=r"should declare node type 'made\.wrong'.*'made\.other'"):
        Registry(namespaces=package).factory("made.wrong")


def test_an_unknown_type_comes_with_the_nearest_names(package: Namespaces) -> None:
    registry = Registry([clean], namespaces=package)
    with pytest.raises(UnknownNodeTypeError, match=r"type 'text\.claen'; did you mean 'text\.clean'"):
        registry.factory("text.claen")
    with pytest.raises(UnknownNodeTypeError, match=r"did you mean 'made\.up'"):
        registry.factory("made.uup")


def test_the_same_implementation_may_come_twice_another_one_may_not() -> None:
    registry = Registry([clean, clean], namespaces=EMPTY)

    @node("text.clean")
    def other(text: str) -> str:
        return text

    with pytest.raises(DuplicateNodeTypeError, match=r"'text\.clean' of .*other is taken by .*:clean"):
        registry.register(other)
    assert registry.factory("text.clean").definition.implementation is clean


def test_an_installed_type_cannot_be_taken(package: Namespaces) -> None:
    @node("made.up")
    def mine(text: str) -> str:
        return text

    with pytest.raises(DuplicateNodeTypeError, match=r"taken by made_nodes\.up"):
        Registry([mine], namespaces=package)


def test_a_cell_run_again_takes_over() -> None:
    registry = Registry(namespaces=EMPTY)
    definitions: list[Any] = []
    for _ in range(2):
        scope: dict[str, Any] = {"node": node, "__name__": "notebook"}
        exec("@node('demo.cell')\ndef cell(x: int) -> int:\n    return x\n", scope)  # noqa: S102 - a notebook cell
        definitions.append(scope["cell"])
        registry.register(scope["cell"])
    assert registry.factory("demo.cell").definition.implementation is definitions[-1]


def test_a_module_registers_everything_it_holds() -> None:
    module = ModuleType("mine")
    module.__dict__.update(clean=clean, Add=Add, Silent=Silent, other=3)
    assert Registry([module], namespaces=EMPTY).types() == ["demo.add", "demo.sink", "text.clean"]
    with pytest.raises(DefinitionError, match="module 'empty' holds no node"):
        Registry([ModuleType("empty")], namespaces=EMPTY)


def test_what_is_no_node_is_refused_with_a_remedy() -> None:
    class Sub(Add):
        pass

    with pytest.raises(DefinitionError, match=r"inherits 'demo\.add'"):
        Registry([Sub], namespaces=EMPTY)
    with pytest.raises(DefinitionError, match="decorate the function"):
        Registry([len], namespaces=EMPTY)


def test_instances_have_their_configuration_bound() -> None:
    registry = Registry([clean, keep, Add, Silent, same], namespaces=EMPTY)
    assert registry.factory("text.clean").create({"lower": False})(" A ") == "A"
    assert registry.factory("demo.add").create({"by": 2}).config.by == 2
    assert registry.factory("demo.sink").create({}).config == AddConfig(1)
    assert registry.factory("demo.same").create({"by": 3})("source") == ("source", 3)
    kept = registry.factory("demo.keep").create({"when": "value.n > 1"})
    assert [kept({"n": n}) for n in (1, 2)] == [False, True]


@pytest.mark.parametrize(
    ("type_name", "config", "part"),
    [
        ("demo.add", {"by": 0}, "demo.add.config.by: must be at least 1"),
        ("text.clean", {"lowr": True}, "did you mean 'lower'"),
        ("demo.keep", {"when": "valeu > 1"}, "valeu"),
        ("demo.keep", {"when": "'text'"}, "true or false"),
        ("demo.keep", {"when": [1]}, "must be an expression, not a list"),
        ("demo.keep", {}, "demo.keep.config.when: is required"),
    ],
)
def test_a_wrong_configuration_is_refused(type_name: str, config: Mapping[str, Any], part: str) -> None:
    registry = Registry([clean, keep, Add], namespaces=EMPTY)
    with pytest.raises(ConfigError) as caught:
        registry.factory(type_name).create(config)
    assert part in str(caught.value)


def test_a_type_describes_itself_as_plain_data() -> None:
    registry = Registry([clean, keep, Add, Silent, same], namespaces=EMPTY)
    described = registry.factory("text.clean").metadata()
    assert described["description"] == "Tidies text."
    assert described["category"] == "text"
    assert described["inputs"] == [{"name": "text", "type": "str", "required": True}]
    assert described["outputs"] == [{"name": "out", "type": "str", "required": True}]
    assert described["config"]["properties"] == {"lower": {"type": "boolean", "default": True}}
    assert registry.factory("demo.sink").metadata()["kind"] == "sink"
    for type_name in registry.types():
        assert msgspec.json.encode(registry.factory(type_name).metadata())


def test_a_filter_gives_what_it_takes() -> None:
    @node("demo.short", kind="filter")
    def short(text: str) -> bool:
        return len(text) < 3

    described = Registry([short], namespaces=EMPTY).factory("demo.short").metadata()
    assert described["outputs"][0]["type"] == "str"


def test_an_overlay_answers_first_and_leaves_the_base_alone() -> None:
    base = Registry([clean], namespaces=EMPTY)

    @node("text.clean")
    def fake(text: str) -> str:
        return text

    overlay = Overlay(base, {"text.clean": fake, "demo.add": Add})
    assert overlay.factory("text.clean").definition.implementation is fake
    assert overlay.types() == ["demo.add", "text.clean"]
    assert base.factory("text.clean").definition.implementation is clean
    assert base.types() == ["text.clean"]


def test_threads_that_ask_at_once_get_one_factory(package: Namespaces) -> None:
    registry = Registry(namespaces=package)
    start = threading.Barrier(8)
    found: list[object] = []

    def ask() -> None:
        start.wait()
        found.append(registry.factory("made.up"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_installed_namespaces_come_from_the_distribution() -> None:
    check_connectors_package()
    registry = Registry()
    assert {"text.clean", "files.source", "memory.sink"} <= set(registry.types())
    for type_name in registry.types():
        assert msgspec.json.encode(registry.factory(type_name).metadata())


def test_no_installed_node_declares_a_policy_without_effect() -> None:
    registry = Registry()
    for type_name in registry.types():
        definition = registry.factory(type_name).definition
        if isinstance(definition, NodeDefinition):
            assert list(misplaced(definition, definition.policies)) == []


def test_a_package_that_hides_our_connectors_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "connectors"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "connectors"}
    for name in hidden:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    with pytest.raises(ShadowedPackageError, match=f"'connectors' at '{folder}' hides FlowRx's own"):
        Registry()


def test_a_distribution_installed_later_is_found_by_the_next_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is installed is remembered per process, because reading it takes some 15 ms; not for ever."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert Namespaces.installed().module_of("late.node") is None
    package = tmp_path / "late_nodes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "node.py").write_text('TYPE = "late.node"\n')
    info = tmp_path / "late_nodes-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late-nodes\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[flowrx.nodes]\nlate = late_nodes\n")
    assert Namespaces.installed().module_of("late.node") == "late_nodes.node"
