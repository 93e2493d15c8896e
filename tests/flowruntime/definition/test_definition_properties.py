"""Definitions under random data: loading is total, and dumping loses nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.document import from_document, read_document
from flowcore.draft import Draft
from flowcore.dump import to_document
from flowcore.errors import ValidationFailedError
from flowcore.policies import Batch, Concurrency, NodePolicies, RetryPolicy
from flowcore.references import ParamRef, ParamText
from flowcore.settings import Limits, ParamSpec, Settings
from flowcore.values import Json, SecretRef
from flowcore.workflow import NodeSpec, Workflow
from flowruntime.compile.validate import validate
from flowruntime.definition.load import dump_workflow, load_draft, load_text
from flowruntime.registry import Registry

_REGISTRY = Registry()

_ODD = st.sampled_from(
    [
        "no",
        "012",
        "1:30",
        "${x}",
        "$${y}",
        "${params.a}",
        "$",
        "a$$",
        "<<",
        "null",
        "~",
        "1e3",
        " ",
        "a: b",
        "# c",
    ]
)
_TEXT = st.text(max_size=8) | _ODD
_NAMED = _TEXT.filter(lambda text: bool(text.strip()))
_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
_PARAM_TEXT = st.tuples(_NAMED, _NAMED).map(lambda two: ParamText((two[0], ParamRef("a"), two[1]))) | st.just(
    ParamText((ParamRef("a"),))
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _TEXT
    | st.binary(max_size=4)
    | st.text(st.characters(codec=None, categories=["Cs"]), max_size=2)
    | st.binary(max_size=4).map(Json)
    | _NAMED.map(SecretRef)
)
_CONSTANTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_CONFIG_VALUES = _CONSTANTS | _PARAM_TEXT | st.lists(_PARAM_TEXT, max_size=2)
_DURATIONS = st.timedeltas(timedelta(microseconds=1), timedelta(days=9))
_POLICIES = st.builds(
    NodePolicies,
    key=st.none() | st.just("record.x + ${params.a}") | _NAMED.filter(lambda t: "${params" not in t),
    concurrency=st.none()
    | st.builds(Concurrency, max=st.none() | st.integers(1, 99), order=st.sampled_from(["ordered", None])),
    timeout=st.none() | _DURATIONS,
    retry=st.none()
    | st.builds(
        RetryPolicy, max_attempts=st.integers(1, 9), retry_on=st.lists(_NAMED, max_size=2).map(tuple)
    ),
    on_error=st.sampled_from(["continue", None]),
    batch=st.none() | st.builds(Batch, max_items=st.integers(1, 9), linger=_DURATIONS),
    resource=st.none() | _NAMED,
    max_output_bytes=st.none() | st.integers(1, 2**40),
)
_SETTINGS = st.builds(
    Settings,
    delivery=st.sampled_from(["at_least_once", "at_most_once"]),
    max_in_flight=st.none() | st.integers(1, 9),
    timeout=st.none() | _DURATIONS,
    limits=st.builds(Limits, types=st.dictionaries(_NAMED, st.integers(1, 9), max_size=2)),
    capture=st.booleans(),
)


@st.composite
def workflows(draw: st.DrawFn, depth: int = 2) -> Workflow:
    """Any workflow that code could build."""
    param = ParamSpec(default=draw(_CONSTANTS), description=draw(_TEXT))
    workflow = Workflow(
        draw(_NAMED),
        id=draw(st.none() | _NAMED),
        version=draw(_NAMED),
        description=draw(_TEXT),
        params={"a": param},
        settings=draw(_SETTINGS),
    )
    for node_id in draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True)):
        inner = draw(workflows(depth=depth - 1)) if depth and draw(st.integers(0, 5)) == 0 else None
        config = draw(st.dictionaries(_TEXT, _CONFIG_VALUES, max_size=3))
        if inner is not None:
            config = {"params": config} if config else {}
        type_name = "workflow" if inner is not None else draw(_NAMES) + ".x"
        spec = {
            "id": node_id,
            "type": type_name,
            "config": config,
            "workflow": inner,
            "description": draw(_TEXT),
        }
        workflow.add_node(NodeSpec(policies=draw(_POLICIES), **spec))  # type: ignore[arg-type] - as named
    nodes = list(workflow.nodes)
    for source, target in pairwise(nodes):
        when = draw(st.none() | st.just("value > ${params.a}") | _NAMED.filter(lambda t: "${params" not in t))
        workflow.connect(
            ".".join([source, *draw(st.sampled_from([[], ["error"], ["p"]]))]) if when is None else source,
            f"{target}.{draw(_NAMES)}" if draw(st.booleans()) else target,
            when=when,
            when_error=when is None or draw(st.booleans()),
        )
        handle = workflow.connect  # a second edge with a field path of any text
        path = tuple(draw(st.lists(_TEXT, max_size=2)))
        connection = handle(source, f"{target}.second", otherwise=True)
        assert connection.otherwise
        if path:
            workflow.add_connection(type(connection)(from_node=source, from_path=path, to_node=target))
    return workflow


@given(workflows())
def test_a_workflow_comes_back_from_every_form_it_is_written_in(workflow: Workflow) -> None:
    assert from_document(to_document(workflow)) == workflow
    for form in ("yaml", "json"):
        assert load_text(dump_workflow(workflow, format=form), format=form, env={}) == workflow


_JSONLIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _TEXT
    | st.sampled_from(["a -> b", "${N}", "${params.q}"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "nodes",
                    "connections",
                    "settings",
                    "params",
                    "type",
                    "config",
                    "workflow",
                    "from",
                    "to",
                    "when",
                    "else",
                    "kind",
                    "key",
                    "retry",
                    "default",
                    "$bytes",
                    "$secret",
                    "a",
                    "b",
                ]
            )
            | _TEXT,
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(_JSONLIKE)
def test_any_data_is_a_workflow_or_problems_with_paths(data: object) -> None:
    _total(lambda: from_document(data))
    _checked(read_document(data))


@given(st.text(st.characters(codec=None), max_size=80) | st.binary(max_size=80))
def test_any_text_is_a_workflow_or_problems_with_paths(text: str | bytes) -> None:
    _total(lambda: load_text(text, env={}))


def test_mutated_workflows_load_or_give_problems() -> None:
    _fuzz(random.Random(), rounds=400)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@settings(max_examples=5_000)
@given(workflows())
def test_a_workflow_comes_back_from_every_form_in_full(workflow: Workflow) -> None:
    assert load_text(dump_workflow(workflow), env={}) == workflow


_SEEDS = (
    """name: triage
settings: {delivery: at_least_once, max_in_flight: 2000, limits: {types: {a.b: 2}}}
params: {host: {kind: str, default: "x"}, n: 3}
nodes:
  tickets: &t {type: kafka.source, config: {topics: [tickets], at: "${params.host}", n: "${N:-8}"}}
  sub:
    type: workflow
    config:
      workflow: {name: in, nodes: {a: x.y}}
      params: {}
  classify:
    type: llm.classify
    config: {api_key: {$secret: KEY}, raw: {$bytes: eA==}}
    key: record.customer_id
    concurrency: {max: 64, order: by_key}
    retry: {max_attempts: 5, initial: 200ms}
    timeout: 2s
connections:
  - tickets.out.text -> classify.text
  - {from: classify.record, to: sub, when: 'value.label == "fraud"'}
  - {from: classify.record, to: sub, else: true}
""",
    """{"name": "w", "nodes": {"a": {"type": "x.y", "config": {"k": [1, 2.5, null, true]}}, "b": "x.z"},
 "connections": ["a -> b", {"from_node": "a", "from_path": ["q"], "to_node": "b", "kind": "data"}]}""",
)
_SNIPPETS = (
    "{",
    "}",
    "[",
    "]",
    "- ",
    ": ",
    "\n",
    '"',
    "'",
    "*t",
    "&t ",
    "!!int ",
    "${",
    "}",
    "$",
    "->",
    ".",
    "\t",
    "\x00",
    "\ud800",
    "null",
    "1e999",
    "9" * 50,
    "~",
    "<<: ",
    "#",
    "|",
    ">",
    "%",
    "@",
    "`",
    "\u2028",
    "---\n",
    "...\n",
    "? ",
)


@pytest.mark.parametrize("text", _SEEDS)
def test_the_texts_that_are_mutated_are_workflows(text: str) -> None:
    assert load_text(text, env={}).nodes


def _fuzz(chance: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        text = chance.choice(_SEEDS)
        for _ in range(chance.randint(1, 6)):
            at, end = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
            match chance.randrange(4):
                case 0:
                    text = text[:at] + chance.choice(_SNIPPETS) + text[at:]
                case 1:
                    text = text[:at] + text[min(end, at + 6) :]
                case 2:
                    text = text[:at] + text[at : at + 40] + text[at:]
                case _:
                    text = text[:at] + chance.choice(_SNIPPETS) + text[at + 1 :]
        _total(lambda text=text: load_text(text, env={}))
        with suppress(ValidationFailedError):
            _checked(load_draft(text, env={}))


def _checked(draft: Draft) -> None:
    """Whatever could not be read, validation tells it, and more, each problem once."""
    try:
        told = list(validate(draft, _REGISTRY).warnings)
    except ValidationFailedError as refused:
        told = list(refused.problems)
    assert len(set(told)) == len(told)
    assert set(draft.problems) <= set(told)
    assert bool(draft.problems) <= any(problem.severity == "error" for problem in told)


def _total(load: Any) -> None:
    """Loading gives a workflow or problems, and so does validating what could be read."""
    loaded, problems = None, None
    try:
        loaded = load()
    except ValidationFailedError as failed:
        problems = failed.problems
    if loaded is None:
        assert problems
        assert all(problem.path and problem.message for problem in problems)
    else:
        assert load_text(dump_workflow(loaded), env={}) == loaded


def _places(data: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Every text of a document, and every key: (path, True)."""
    if isinstance(data, dict):
        for key, value in cast("dict[str, object]", data).items():
            yield (*path, key), True
            yield from _places(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(cast("list[object]", data)):
            yield from _places(value, (*path, index))
    elif isinstance(data, str):
        yield path, False


FULL = {
    "name": "w", "id": "i", "version": "1", "description": "d",
    "params": {"p": {"default": "x", "kind": "str", "description": "pd"}},
    "settings": {
        "limits": {"types": {"a": 1}, "resources": {"r": 2}, "rates": {"q": 3}},
        "dead_letter": {"type": "files.sink", "config": {"path": "x.jsonl"}},
    },
    "nodes": {
        "a": {
            "type": "control.merge", "description": "n", "resource": "r", "key": "value.x",
            "retry": {"retry_on": ["ValueError"]}, "config": {"x": "y"}, "on_error": {"fallback": "z"},
        },
        "b": "text.clean",
    },
    "connections": [{"from": "a.out.f", "to": "b.text", "when": "value == 'x'"}, "a -> b"],
}  # fmt: skip


@pytest.mark.parametrize(("path", "is_key"), list(_places(FULL)))
def test_half_a_character_anywhere_is_refused_or_comes_back(path: tuple[Any, ...], is_key: bool) -> None:
    """JSON can write a lone surrogate, and no text file can hold one; values of data have a form for it."""
    document: Any = json.loads(json.dumps(FULL))
    place = document
    for step in path[:-1]:
        place = place[step]
    if is_key:
        place[f"{path[-1]}\ud800"] = place.pop(path[-1])
    else:
        place[path[-1]] += "\ud800"
    try:
        workflow = load_text(json.dumps(document), env={})
    except ValidationFailedError:
        return
    assert load_text(dump_workflow(workflow), env={}) == workflow
