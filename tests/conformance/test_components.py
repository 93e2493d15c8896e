"""The rules of docs/specs/component.md: each is cited by a test; the static ones stand here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.files.source import FilesSource
from flowcore import Credit, Node, NodeContext, Workflow, node
from flowcore.connector import ConnectorDefinition
from flowruntime.registry import Registry
from flowruntime.testing.contexts import StandaloneSourceContext
from tests.behaviour.harness import Nothing, Script, kept, runtime, same, virtual

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = ROOT / "docs" / "specs" / "component.md"
NOT_YET = {"SRC-12": "there is no push source yet"}


def modules(*folders: str) -> list[Path]:
    """Their Python files."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def rules() -> list[str]:
    return re.findall(
        r"^- \*\*([A-Z]{3}-[0-9]+)\*\*", SPECIFICATION.read_text(encoding="utf-8"), re.MULTILINE
    )


def cited() -> set[str]:
    """Rules that a docstring of a test names."""
    found: set[str] = set()
    for path in modules("tests", "flowruntime/testing/conformance"):
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_"):
                found.update(re.findall(r"\b[A-Z]{3}-[0-9]+\b", ast.get_docstring(item) or ""))
    return found


def test_every_rule_is_cited_by_a_test_and_no_other_is() -> None:
    known = rules()
    assert len(known) == len(set(known))
    assert set(known) - cited() == set(NOT_YET)
    assert cited() <= set(known)


# --- all components ---------------------------------------------------------------------------------------

_SHARED = {"formats", "turns"}
"""What of `connectors` is no outside system."""


@pytest.mark.parametrize(
    "path", modules("flownodes", "connectors"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_component_imports_neither_the_runtime_nor_another_system(path: Path) -> None:
    """ALL-1."""
    package, folder, *_ = path.relative_to(ROOT).parts
    others = {"flowruntime", "connectors" if package == "flownodes" else "flownodes"}
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, ast.ImportFrom) and item.module:
            head, _, rest = item.module.partition(".")
            assert head not in others
            if head == "connectors":
                assert rest.partition(".")[0] in {folder, *_SHARED}


_IMPORTS_ALL = """
import importlib, sys, threading
opened = []
def watch(event, arguments):
    if event in ("socket.__new__", "socket.connect", "subprocess.Popen", "os.system", "tempfile.mkstemp"):
        opened.append((event, arguments))
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        opened.append((event, arguments))
sys.dont_write_bytecode = True
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not opened, opened
assert threading.active_count() == 1, threading.enumerate()
"""


def test_importing_every_node_and_connector_opens_nothing_and_starts_nothing() -> None:
    """ALL-2."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules("flownodes", "connectors")
        if path.name != "__init__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS_ALL, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


_CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.sleep", "asyncio.sleep", "datetime.now"}


_IN_REAL_TIME = {
    "connectors/files/letters.py",  # waits in its thread for a lock: another process has it, in no other time
}


def calls_of(path: Path) -> Iterator[str]:
    """Names called in a module, as `module.function` where they are written so."""
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, ast.Call):
            yield ast.unparse(item.func)


@pytest.mark.parametrize(
    "path", modules("flownodes", "connectors"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_component_reads_a_clock_or_sleeps_by_itself(path: Path) -> None:
    """ALL-3, NOD-11: retries, rates and timeouts need one."""
    if str(path.relative_to(ROOT)) in _IN_REAL_TIME:
        return
    assert _CLOCKS.isdisjoint(calls_of(path))


@pytest.mark.parametrize(
    "path", modules("flownodes", "connectors"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_component_logs_or_counts_for_itself(path: Path) -> None:
    """ALL-11."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) (logging|structlog|opentelemetry)\b", text, re.MULTILINE)


def connectors() -> list[Any]:
    """The installed sources and sinks."""
    registry = Registry()
    found = [registry.factory(name).definition for name in registry.types()]
    return [each for each in found if isinstance(each, ConnectorDefinition)]


@pytest.mark.parametrize("definition", connectors(), ids=lambda definition: definition.type)
def test_every_connector_says_what_it_holds(definition: ConnectorDefinition) -> None:
    """ALL-5."""
    assert re.search(r"^Holds\b", definition.description, re.MULTILINE)


# --- sources ----------------------------------------------------------------------------------------------


@virtual
async def test_a_large_file_is_not_read_ahead_of_its_credit(tmp_path: Path) -> None:
    """SRC-4: 64 MiB, of which two lines are asked for."""
    path = tmp_path / "large.txt"
    line = b"x" * 65_535 + b"\n"
    with path.open("wb") as file:
        for _ in range(1_024):
            file.write(line)
    source = FilesSource(
        msgspec.convert({"path": str(path), "format": "lines"}, FilesSource.__flow_connector__.config_type)
    )
    context = StandaloneSourceContext()
    (partition,) = [change.partition async for change in source.assignments(context)]
    reader = await source.open(partition, None, context)
    tracemalloc.start()
    try:
        assert await reader.read(Credit(rows=1)) is not None
        assert await reader.read(Credit(rows=1)) is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await reader.close()
    assert peak < 8 << 20


# --- nodes ------------------------------------------------------------------------------------------------


@node("rule.nothing")
def gives_nothing(value: int) -> None:
    del value


@virtual
async def test_a_map_that_returns_none_gives_null_and_drops_nothing() -> None:
    """NOD-5."""
    wf = Workflow("null")
    wf.chain(wf.add(gives_nothing, id="n"), wf.add(same, id="after"))
    async with runtime() as rt:
        assert (await rt.execute(wf, {"value": 1})).outputs["after"] == {"out": None}


class Ways(msgspec.Struct):
    """Two ways out."""

    left: int | msgspec.UnsetType = msgspec.UNSET
    right: int | msgspec.UnsetType = msgspec.UNSET


class In(msgspec.Struct):
    """One way in."""

    value: int


class Part(Node[Nothing, In, Ways], type="rule.part"):
    """Even numbers go left; 0 goes nowhere."""

    def execute(self, inputs: In, ctx: NodeContext) -> Ways:
        if inputs.value == 0:
            return Ways()
        return Ways(right=inputs.value) if inputs.value % 2 else Ways(left=inputs.value)


@virtual
async def test_a_port_left_unset_gives_nothing_and_its_row_is_settled() -> None:
    """NOD-6."""
    left, right = kept(name="rule.left"), kept(name="rule.right")
    wf = Workflow("ways")
    part = wf.add(Part, id="n")
    wf.connect(wf.add(Script, id="s"), part)
    wf.connect(part["left"], wf.add(left, id="l"))
    wf.connect(part["right"], wf.add(right, id="r"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[0, 1, 2, 3]])})).wait()
    assert result.ok
    assert result.records == 4
    assert (left.rows, right.rows) == ([2], [1, 3])


# --- operators of the engine ------------------------------------------------------------------------------

CHAIN = modules("flowruntime/operators", "flowruntime/compile")


@pytest.mark.parametrize("path", CHAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_subscription_has_an_on_error(path: Path) -> None:
    """OPR-7."""
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(item, ast.Call)
            and isinstance(item.func, ast.Attribute)
            and item.func.attr == "subscribe"
        ):
            named = any(keyword.arg == "on_error" for keyword in item.keywords)
            assert named or len(item.args) >= 2, f"line {item.lineno}: subscribe(on_next, on_error)"


_FORBIDDEN = {
    "observe_on",
    "flat_map",
    "merge",
    "group_by",
    "replay",
    "delay",
    "debounce",
    "throttle",
    "timeout",
    "window",
}


@pytest.mark.parametrize("path", CHAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_operator_of_reactivex_that_queues_or_has_a_thread_is_in_a_chain(path: Path) -> None:
    """OPR-8."""
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, ast.ImportFrom) and (item.module or "").startswith("reactivex"):
            assert _FORBIDDEN.isdisjoint(name.name for name in item.names)
            assert "operators" not in {name.name for name in item.names}


STAGES = [
    "fused",
    "waiting",
    "batching",
    "expand",
    "collect",
    "join",
    "merge",
    "reopen",
    "batch",
    "opaque",
    "sink",
]


@pytest.mark.parametrize("name", STAGES)
def test_the_contract_of_every_operator_stands_at_its_head(name: str) -> None:
    """OPR-12."""
    text = (ROOT / "flowruntime" / "operators" / f"{name}.py").read_text(encoding="utf-8")
    contract = ast.get_docstring(ast.parse(text)) or ""
    missing = [
        word
        for word in ("Emits", "Backpressures", "Completes", "Fails", "Holds")
        if not re.search(rf"^{word}\b", contract, re.MULTILINE)
    ]
    assert missing == []
