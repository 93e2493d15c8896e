"""Definitions: YAML and JSON made by a grammar, most of them damaged, and documents that are dear on purpose.

Owns: `SUBJECTS`, `costly`.
Does not own: which problems a fault is told by (tests/flowruntime/definition/test_every_problem.py).

Always holds: a document is a workflow that comes back from being written, or problems, each with a path and a
message and told once; what validates has a plan. Nothing of it is run.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import yaml

from flowcore.errors import Problem, ValidationFailedError
from flowruntime.cli.planning import has_source
from flowruntime.compile.lower import lower
from flowruntime.compile.validate import validate
from flowruntime.definition.files import MAX_BYTES
from flowruntime.definition.load import dump_workflow, load_draft, load_text
from flowruntime.definition.yaml import write_yaml
from flowruntime.registry import Registry
from tests.fuzz.expressions import text_of
from tests.fuzz.harness import Subject
from tests.fuzz.mutation import INTERESTING_TEXTS, mutated

ENVIRONMENT: Final[Mapping[str, str]] = {"N": "8", "TEXT": "${params.a}", "YES": "true"}
_REGISTRY: Final = Registry()

# --- the grammar ------------------------------------------------------------------------------------------

_ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1.5, 1 << 70, "", " ", "no", "012", "1:30", "${N}", "${N:-3}", "${NO}", "$${x}",
    "${params.a}",
    "${params.q}", "value.x > ${params.a}", "a -> b", [], {}, [1, "a"], {"a": {"b": [None]}},
    {"$bytes": "eA=="},
    {"$bytes": "?"}, {"$secret": "KEY"}, {"$secret": "../KEY"}, {"$int": "9" * 30}, {"$x": 1}, {"$$x": 1},
    "2s", "1KiB",
    "é\U0001f600", "\ud800", "x" * 300, "a.b.c", "$", "~", "<<", "1e3",
)  # fmt: skip
_TYPES: Final = (
    "text.clean", "transform.filter", "transform.map", "transform.split", "control.collect",
    "control.condition",
    "control.switch", "control.merge", "control.gather", "control.batch", "control.delay", "memory.source",
    "memory.sink", "files.source", "files.sink", "http.request", "debug.log", "stream.share",
    "transform.rename",
    "text.claen", "kafka.source", "text.__init__", "os.system", "workflow", "", "a b", "text.clean.x",
)  # fmt: skip
_CONFIG: Final = (
    "where", "when", "fields", "path", "values", "format", "rows", "duration", "per", "cases", "url",
    "method", "text",
    "max_items", "on", "join", "wheer", "__class__", "fields", "where",
)  # fmt: skip
_IDS: Final[tuple[str, ...]] = ("a", "b", "c", "d", "e", "a_b", "A", "1a", "a.b", "", "nodes", "ä", "x" * 90)
_PORTS: Final = (
    "",
    "",
    "",
    ".out",
    ".error",
    ".text",
    ".value",
    ".true",
    ".in",
    ".out.x",
    '.out."a b"',
    ".x.y.z",
    ".",
)
_SETTINGS: Final = (
    "delivery", "max_in_flight", "timeout", "limits", "on_error", "capture", "dead_letter", "max_redelivery",
    "commit_interval", "max_frame", "max_bytes", "delivrey",
)  # fmt: skip
_POLICIES: Final = (
    "retry", "timeout", "concurrency", "key", "batch", "on_error", "resource", "breaker", "rate", "cache",
    "description",
    "max_output_bytes", "tiemout",
)  # fmt: skip
_GOOD: Final[Mapping[str, tuple[Any, ...]]] = {
    "retry": ({"max_attempts": 3}, {"max_attempts": 3, "initial": "1s"}),
    "timeout": ("2s", "1m"),
    "concurrency": ({"max": 4}, {"order": "by_key", "max": 2}, 3),
    "key": ("value.id",),
    "on_error": ("continue", "fail"),
    "batch": ({"max_items": 5, "linger": "1s"},),
    "delivery": ("at_least_once", "at_most_once"),
    "max_in_flight": (10, 1000),
    "limits": ({"types": {"text.clean": 2}}, {"resources": {"r": 1}}),
    "dead_letter": (
        {"type": "files.dead_letters", "config": {"path": "d.jsonl"}},
        {"type": "sqlite.dead_letters"},
    ),
    "where": ("value.x > 1", "has(value.a)", "value == ${params.a}"),
    "when": ("value.x > 1",),
    "fields": ({"id": "value.id", "n": {"$literal": 1}}, ["id"], {"a": ["value.x", "1 + 1"]}),
    "values": ([1, 2], ["a"]),
    "path": ("in.jsonl", "out.csv", "/etc/passwd"),
    "cases": ({"x": "value.x == 1"}, [{"when": "true", "port": "x"}]),
    "duration": ("1s",),
    "max_items": (3,),
}


def data_of(chance: random.Random, depth: int = 2) -> Any:
    """The plain data of a document: mostly in form, some of it not."""
    if not chance.randrange(60):
        return chance.choice(_ODD)
    names: tuple[str, ...] = _IDS[:7] if chance.random() < 0.8 else _IDS
    ids: list[str] = chance.sample(names, chance.randrange(1, 4))
    data: dict[str, Any] = {"name": "w", "nodes": {name: _node(chance, depth) for name in ids}}
    if chance.random() < 0.85:
        count = chance.randrange(5)
        data["connections"] = [_connection(chance, ids) for _ in range(count)]
        if chance.random() < 0.6:
            chain = [name for name in ids if name]
            data["connections"] += [f"{one} -> {other}" for one, other in pairwise(chain)]
    if chance.random() < 0.4:
        data["params"] = {"a": _of(chance, "param"), "b": {"kind": "int", "default": chance.choice(_ODD)}}
    if chance.random() < 0.3:
        data["settings"] = {
            name: _of(chance, name) for name in chance.sample(_SETTINGS, chance.randrange(1, 4))
        }
    if not chance.randrange(8):
        data[chance.choice(("id", "version", "description", "node", "name", "x-y", "nodes"))] = chance.choice(
            _ODD
        )
    return data


_SOUND: Final[tuple[dict[str, Any], ...]] = (
    {"type": "text.clean"},
    {"type": "text.clean", "config": {}},
    {"type": "debug.log", "description": "d"},
    {"type": "transform.filter", "config": {"where": "value != '${params.a}'"}},
    {"type": "control.merge"},
    {"type": "workflow", "config": {"workflow": {"name": "i", "nodes": {"x": "text.clean"}}}},
)


def sound_data(chance: random.Random) -> dict[str, Any]:
    """The plain data of a small workflow that is valid, most of the time."""
    ids = chance.sample(_IDS[:7], chance.randrange(1, 4))
    nodes: dict[str, Any] = {"src": {"type": "memory.source", "config": {"values": ["a", "${N}"]}}}
    nodes |= {name: chance.choice(_SOUND) for name in ids}
    chain = ["src", *ids]
    arrows: list[Any] = [f"{one} -> {other}" for one, other in pairwise(chain)]
    if chance.random() < 0.3:
        arrows[-1] = {"from": chain[-2], "to": chain[-1], "when": _GOOD["when"][0]}
    data: dict[str, Any] = {"name": "w", "params": {"a": "x"}, "nodes": nodes, "connections": arrows}
    if chance.random() < 0.3:
        name = chance.choice(("delivery", "max_in_flight"))
        data["settings"] = {name: _GOOD[name][0]}
    return data


def _of(chance: random.Random, name: str) -> Any:
    if name in _GOOD and chance.random() < 0.8:
        return chance.choice(_GOOD[name])
    return text_of(chance) if chance.random() < 0.1 else chance.choice(_ODD)


def _node(chance: random.Random, depth: int) -> Any:
    kind = chance.choice(_TYPES[:19] if chance.random() < 0.85 else _TYPES)
    if not chance.randrange(6):
        return kind if chance.random() < 0.8 else chance.choice(_ODD)
    if depth and not chance.randrange(8):
        config: Any = {"workflow": data_of(chance, depth - 1), "params": {"a": chance.choice(_ODD)}}
        if not chance.randrange(4):
            config = {"file": chance.choice(("../x.yaml", "/dev/zero", "w.yaml", 7))}
        return {"type": "workflow", "config": config}
    node: dict[str, Any] = {"type": kind}
    if chance.random() < 0.6:
        node["config"] = {name: _of(chance, name) for name in chance.sample(_CONFIG, chance.randrange(1, 3))}
    for name in chance.sample(_POLICIES, chance.choice((0, 0, 0, 1, 2))):
        node[name] = _of(chance, name)
    return node


def _connection(chance: random.Random, ids: list[str]) -> Any:
    one, other = (f"{chance.choice(ids)}{chance.choice(_PORTS)}" for _ in range(2))
    match chance.randrange(8):
        case 0:
            return {"from": one, "to": other, "when": _of(chance, "when")}
        case 1:
            return {"from": one, "to": other, "else": chance.choice((True, False, "yes"))}
        case 2:
            kinds = ("data", "control", "error", "conditional", "x")
            return {"from_node": one, "to_node": other, "kind": chance.choice(kinds), "when_error": False}
        case 3:
            return chance.choice((*_ODD, f"{one} => {other}", f"{one}{other}", f"{one} -> {other} -> {one}"))
        case _:
            return f"{one} -> {other}"


def _written(chance: random.Random, data: Any) -> str:
    """As a file: JSON or YAML, of a style."""
    style = chance.randrange(5)
    if style:  # YAML has no form of lone surrogates
        data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    match style:
        case 0:
            return json.dumps(data, indent=chance.choice((None, 1)), ensure_ascii=chance.random() < 0.8)
        case 1:
            return yaml.dump(data, Dumper=yaml.CSafeDumper, default_flow_style=True, allow_unicode=True)
        case 2:  # with anchors and aliases where an object comes twice
            return yaml.dump(data, Dumper=yaml.CSafeDumper, default_flow_style=False, sort_keys=False)
        case _:
            return write_yaml(data)


def _document(chance: random.Random) -> str:
    if chance.random() < 0.5:
        text = _written(chance, sound_data(chance))
        return text if chance.random() < 0.35 else mutated(chance, [text], INTERESTING_TEXTS)
    text = _written(chance, data_of(chance, depth=1))
    return text if chance.random() < 0.5 else mutated(chance, [text], INTERESTING_TEXTS)


# --- what must hold ---------------------------------------------------------------------------------------


def check_document(text: str) -> bool:
    """Only workflow errors with a path; what loads comes back, what is valid has a plan."""
    one_in_four = zlib.crc32(text.encode("utf-8", "surrogatepass")) % 4 == 0
    taken = _planned(text, also_faulty=one_in_four)
    if not one_in_four:
        return taken
    try:
        workflow = load_text(text, env=ENVIRONMENT)
    except ValidationFailedError as refused:
        if taken:
            raise AssertionError("it has a plan and does not load") from refused
        _well_told(refused.problems)
        return False
    if load_text(dump_workflow(workflow), env={}) != workflow:
        raise AssertionError("it does not come back from being written")
    return taken


def _planned(text: str, *, also_faulty: bool = True) -> bool:
    """Whether it has a plan; `also_faulty`: one whose form is wrong is validated, too."""
    try:
        draft = load_draft(text if "\n" in text else f"{text}\n", env=ENVIRONMENT)
        if draft.problems and not also_faulty:
            _well_told(draft.problems)
            return False
        graph = validate(draft, _REGISTRY)
    except ValidationFailedError as refused:
        _well_told(refused.problems)
        return False
    lower(graph, mode="stream" if has_source(graph) else "request")
    return True


def _well_told(problems: Sequence[Problem]) -> None:
    if not any(problem.severity == "error" for problem in problems):
        raise AssertionError("refused without an error")
    for problem in problems:
        if not problem.path or not problem.message or (problem.line is not None and problem.line < 1):
            raise AssertionError(f"a problem without its place: {problem!r}")
    if len(set(problems)) != len(problems):
        raise AssertionError("a problem is told twice")


# --- dear on purpose --------------------------------------------------------------------------------------


def _nodes(count: int, node: str = "{type: text.clean}", name: str = "n") -> str:
    return "name: w\nnodes:\n" + "".join(f"  {name}{number}: {node}\n" for number in range(count))


def _lines(start: str, line: str, count: int) -> str:
    return start + "".join(line.replace("@", str(number)) for number in range(count))


def costly() -> dict[str, str]:
    """Documents of up to a megabyte, each made so that some work in it is done very often."""
    start = "name: w\nnodes: {a: "
    inner = ", ".join(f"x{number}: text.clean" for number in range(900))
    nested = f"{{name: i, nodes: {{{inner}}}}}"
    aliased = f"name: w\nnodes:\n  a0: &a {{type: workflow, config: {{workflow: {nested}}}}}\n"
    one = "name: w\nnodes:\n  a:\n    type: text.clean\n"
    two = "name: w\nnodes: {a: text.clean, b: text.clean}\nconnections:\n"
    filters = '  n@: {type: transform.filter, config: {where: \'value.a@ > @ && value.b in ["x", "y"]\'}}\n'
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    return {
        "a chain": _nodes(5_000) + "connections:\n" + "".join(f"- n{n} -> n{n + 1}\n" for n in range(4_999)),
        "more nodes than there may be": _nodes(45_000, "x.y"),
        "as many expressions": _lines("name: w\nnodes:\n", filters, 2_500),
        "nested by alias": _lines(aliased, "  a1@: *a\n", 99),
        "types that are not known": _nodes(4_000, "text.claen"),
        "fields that are not known": _lines(one, "    typ@: 1\n", 20_000),
        "configuration that is not known": _lines(f"{one}    config:\n", "      lowr@: 1\n", 20_000),
        "params that are not declared": _lines(
            _lines("name: w\nparams:\n", "  p@: 1\n",
            20_000) + one.removeprefix("name: w\n") + "    config:\n",
            "      q@: '${params.q@}'\n", 20_000,
        ),
        "variables that are not set": _lines(f"{one}    config:\n", "      x@: '${N@}'\n", 20_000),
        "ends that are not there": _lines(_nodes(1_000, name="p") + "connections:\n", "- q@ -> q1@\n",
        40_000),
        "connections that come again": two + "- a -> b\n" * 40_000,
        "ports that are not there": _lines(two, "- a.x@ -> b.y@\n", 15_000),
        "conditions": _lines(two, "- {from: a, to: b, when: 'value == \"@\"'}\n", 2_500),
        "keys given twice": "a: 1\n" * 100_000,
        "keys given twice in one line": "{" + ",".join(['"a":1'] * 120_000) + "}",
        "keys that are no text": "1: 1\n" * 60_000,
        "tags": "a:\n" + "- !x 1\n" * 60_000,
        "merge keys": "<<: 1\n" * 60_000,
        "aliases of aliases": laughs,
        "levels": "name: " + "[" * 500_000,
        "levels of JSON": '{"a":' * 200_000,
        "wide and deep": _lines("", "a@: " + "[" * 90 + "1" + "]" * 90 + "\n", 5_000),
        "one long key": "? " + "x" * 900_000 + "\n: 1\n",
        "one long number": "name: w\nnodes: {a: {type: text.clean, timeout: " + "1" * 900_000 + "}}\n",
        "one long duration": "name: w\nnodes: {a: {type: text.clean, timeout: '" + "1" * 900_000 + "s'}}\n",
        "one long reference": "name: '" + "${" * 450_000 + "'\n",
        "many references": "name: '" + "${N}" * 220_000 + "'\n",
        "one long expression":
            f"{start}{{type: transform.filter, config: {{where: '" + "(" * 900_000 + "'}}}\n",
        "one long connection":
            f"{start}x.y}}\nconnections: ['" + "a " * 400_000 + " -> " + "b." * 50_000 + "']\n",
        "lines": "\n" * 1_000_000,
        "spaces": '{"name":' + " " * 1_000_000 + "1}",
    }  # fmt: skip


COSTLY: Final = tuple(sorted(costly()))


def check_costly(text: str) -> bool:
    """As any document, but not read again."""
    if len(text) > MAX_BYTES:
        raise AssertionError(f"{len(text)} characters: refused before it costs anything")
    return _planned(text)


def _dear(name: str) -> Subject:
    return Subject(
        name=f"tests.fuzz.documents:{name}",
        payload=lambda _: costly()[name],
        check=check_costly,
        most_cpu_s=10,  # a second per 1,000 nodes, and there are at most 10,000
    )


DOCUMENT: Final = Subject(name="tests.fuzz.documents:document", payload=_document, check=check_document)
DEAR: Final = tuple(map(_dear, costly()))
SUBJECTS: Final = (DOCUMENT, *DEAR)
