"""Validation: every problem at once, each with where, what, the value and what to do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from flowcore.connection import ConnectionKind, ConnectionSyntaxError
from flowcore.connector import Position, Reader, Rows, Sink, Source
from flowcore.context import SourceContext
from flowcore.definition import Gather
from flowcore.errors import Problem, ValidationFailedError
from flowcore.expression import Expression, Template
from flowcore.findings import Mark
from flowcore.node import node
from flowcore.operator import operator
from flowcore.policies import Batch, RetryPolicy
from flowcore.values import Secret, SecretRef
from flowcore.workflow import Workflow, WorkflowError
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.compile.validate import validate
from flowruntime.discovery import Namespaces
from flowruntime.registry import Registry


class Ticket(TypedDict):
    id: int
    text: str


class TicketsConfig(msgspec.Struct):
    path: str = "tickets.jsonl"


class Tickets(Source[TicketsConfig, Ticket], type="demo.tickets"):
    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[Ticket]:
        raise NotImplementedError


class Out(Sink[None, Any], type="demo.out"):
    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        return {}


@node("demo.clean")
def clean(text: str, *, lower: bool = True, most: Annotated[int, Meta(ge=1)] = 100) -> str:
    return text.lower()[:most] if lower else text[:most]


@node("demo.size")
def size(text: str) -> int:
    return len(text)


@node("demo.keep", kind="filter", computes="when")
def keep(value: object, *, when: Expression) -> bool:
    return bool(when(value=value))


@node("demo.shape", computes="fields")
def shape(value: object, *, fields: Template) -> dict[str, object]:
    return dict(fields(value=value))


@node("demo.ask")
async def ask(text: str, hint: str = "") -> str:
    return text + hint


@node("demo.join")
def join(left: str, right: int) -> str:
    return f"{left}{right}"


@node("demo.all")
def everything(texts: Gather[str]) -> int:
    return len(texts)


@node("demo.words")
def words(text: str) -> Iterator[str]:
    yield from text.split()


@node("demo.pages")
async def pages(text: str) -> AsyncIterator[str]:
    yield text


@node("demo.embed", batch=Batch(max_items=8))
async def embed(texts: Sequence[str]) -> Sequence[list[float]]:
    return [[float(len(text))] for text in texts]


@node("demo.tick")
def tick() -> int:
    return 1


@operator("demo.quiet", settles="on_entry")
def quiet() -> Any:
    return None


TYPES = [Tickets, Out, clean, size, keep, shape, ask, join, everything, words, pages, embed, tick, quiet]
REGISTRY = Registry(TYPES, namespaces=Namespaces(()))


def graph(workflow: Workflow, **options: Any) -> ResolvedGraph:
    return validate(workflow, REGISTRY, **options)


def problems(workflow: Workflow, **options: Any) -> list[Problem]:
    with pytest.raises(ValidationFailedError) as caught:
        validate(workflow, REGISTRY, **options)
    return list(caught.value.problems)


def only(workflow: Workflow, **options: Any) -> Problem:
    (problem,) = problems(workflow, **options)
    return problem


def started(**settings: object) -> Workflow:
    """A workflow with a source `tickets`."""
    workflow = Workflow("w", settings=settings)
    workflow.add("demo.tickets", id="tickets")
    return workflow


def with_node(type_name: str, **options: Any) -> Workflow:
    """`tickets.out.text` -> `n`."""
    workflow = started(**options.pop("settings", {}))
    workflow.add(type_name, id="n", **options)
    workflow.connect("tickets.out.text", "n")
    return workflow


# --- what comes out ---


def test_a_valid_workflow_comes_back_resolved() -> None:
    workflow = started()
    workflow.add("demo.clean", id="clean", config={"most": 5})
    workflow.add("demo.out", id="out")
    workflow.connect("clean", "out", when="value != '' && record.id > 1")
    workflow.connect("tickets.out.text", "clean")
    found = graph(workflow)
    assert list(found.nodes) == ["tickets", "clean", "out"]
    assert [node.role for node in found.nodes.values()] == ["source", "map", "sink"]
    assert (found.nodes["clean"].config.lower, found.nodes["clean"].config.most) == (True, 5)
    assert found.nodes["clean"].raw_config == {"most": 5}
    first, second = found.connections
    assert (first.from_port, first.to_port, first.kind) == ("out", "value", "conditional")
    assert first.when is not None
    assert first.when(value="x", record={"id": 2}) is True
    assert (second.path, second.to_port) == (("text",), "text")
    assert found.warnings == ()
    assert found.open_ports == {}


def test_functions_given_to_add_come_before_the_registry() -> None:
    @node("demo.clean")
    def mine(text: str) -> str:
        return text

    workflow = started()
    workflow.add(mine, id="clean")
    workflow.connect("tickets.out.text", "clean")
    assert graph(workflow).nodes["clean"].definition.implementation is mine
    assert REGISTRY.factory("demo.clean").definition.implementation is clean


def test_expressions_and_templates_see_the_input_ports() -> None:
    workflow = started()
    workflow.add("demo.keep", id="keep", config={"when": "value.id > 1"})
    workflow.add("demo.shape", id="shape", config={"fields": {"n": "value.id", "t": ["value.text"]}})
    workflow.chain("tickets", "keep", "shape")
    found = graph(workflow)
    assert found.nodes["keep"].config.when(value={"id": 2}) is True
    assert found.nodes["shape"].config.fields(value={"id": 2, "text": "x"}) == {"n": 2, "t": ["x"]}


def test_params_take_their_defaults() -> None:
    workflow = Workflow("w", params={"most": 7})
    workflow.add("demo.clean", id="clean", config={"most": "${params.most}"})
    assert graph(workflow, mode="request").nodes["clean"].config.most == 7


def test_policies_are_merged_by_precedence() -> None:
    @node("demo.slow", timeout=timedelta(seconds=1), retry=RetryPolicy(max_attempts=9))
    async def slow(text: str) -> str:
        return text

    workflow = started(on_error="continue", max_output_bytes=1000)
    workflow.add(slow, id="n", timeout="2s")
    workflow.connect("tickets.out.text", "n")
    policies = graph(workflow).nodes["n"].policies
    assert policies.timeout == timedelta(seconds=2)
    assert policies.retry == RetryPolicy(max_attempts=9)
    assert policies.on_error == "continue"
    assert policies.max_output_bytes == 1000


def test_several_connections_may_meet_in_one_port() -> None:
    workflow = started()
    workflow.add("demo.clean", id="a")
    workflow.add("demo.clean", id="b")
    workflow.add("demo.all", id="all")
    for name in ("a", "b"):
        workflow.connect("tickets.out.text", name)
        workflow.connect(name, "all")
    workflow.add("demo.out", id="out")
    workflow.connect("a", "out")
    workflow.connect("b", "out")
    assert len(graph(workflow).connections) == 6


def test_in_a_request_the_inputs_fill_open_ports() -> None:
    workflow = Workflow("w")
    workflow.add("demo.join", id="join")
    workflow.add("demo.ask", id="ask")
    workflow.connect("join", "ask")
    assert graph(workflow, mode="request").open_ports == {"join": ("left", "right"), "ask": ("hint",)}
    assert graph(workflow, mode="stream").open_ports  # no source at all: only requests can run it


def test_a_secret_stays_a_reference() -> None:
    @node("demo.call")
    def call(text: str, *, key: Secret) -> str:
        return text + key.reveal()

    workflow = started()
    workflow.add(call, id="n", config={"key": SecretRef("API_KEY")})
    workflow.connect("tickets.out.text", "n")
    assert graph(workflow).nodes["n"].config.key == SecretRef("API_KEY")


def test_a_secret_has_no_place_in_a_plain_field() -> None:
    workflow = with_node("demo.clean", config={"lower": SecretRef("A")})
    assert "no secret can stand here" in only(workflow).remedy


# --- nodes ---


@pytest.mark.parametrize(
    ("type_name", "options", "path", "part", "remedy"),
    [
        ("demo.claen", {}, "nodes.n.type", "unknown node type 'demo.claen'", "did you mean 'demo.clean'"),
        ("demo.clean", {"config": {"lowr": 1}}, "nodes.n.config.lowr", "unknown", "did you mean 'lower'"),
        ("demo.clean", {"config": {"most": 0}}, "nodes.n.config.most", "at least 1", ""),
        ("demo.keep", {"config": {"when": "vlaue > 1"}}, "nodes.n.config.when", "vlaue", ""),
        ("demo.keep", {"config": {"when": "1 + 1"}}, "nodes.n.config.when", "true or false", ""),
        ("demo.shape", {"config": {"fields": {"a": "b +"}}}, "nodes.n.config.fields", "compile", ""),
        ("demo.clean", {"timeout": "1s"}, "nodes.n.timeout", "plain function", "make it a coroutine"),
        ("demo.clean", {"retry": {}}, "nodes.n.retry", "plain function", "offload"),
        ("demo.clean", {"concurrency": 4}, "nodes.n.concurrency", "plain function", "coroutine"),
        ("demo.clean", {"batch": 4}, "nodes.n.batch", "does not apply", "Batch(...)"),
        ("demo.ask", {"batch": 4}, "nodes.n.batch", "one row at a time", "Batch(...)"),
        ("demo.ask", {"max_children": 4}, "nodes.n.max_children", "does not apply", "remove it"),
        ("demo.out", {"timeout": "3s"}, "nodes.n.timeout", "does not apply to a sink", "remove it"),
        (
            "demo.quiet",
            {"batch": 2, "settings": {"allow_weaker": True}},
            "nodes.n.batch",
            "operator",
            "remove",
        ),
        ("demo.words", {"retry": {}}, "nodes.n.retry", "plain generator", "async def with yield"),
        ("demo.words", {"timeout": "1s"}, "nodes.n.timeout", "plain generator", "async def with yield"),
        ("demo.words", {"concurrency": 4}, "nodes.n.concurrency", "plain generator", "async def with yield"),
        (
            "demo.words",
            {"resource": "gpu", "settings": {"limits": {"resources": {"gpu": 2}}}},
            "nodes.n.resource",
            "plain generator",
            "async def with yield",
        ),
        ("demo.words", {"batch": 4}, "nodes.n.batch", "plain generator", "remove it"),
        ("demo.pages", {"key": "record.id"}, "nodes.n.key", "asynchronous generator", "remove it"),
        ("demo.pages", {"batch": 4}, "nodes.n.batch", "asynchronous generator", "remove it"),
        (
            "demo.pages",
            {"concurrency": {"max": 2, "order": "ordered"}},
            "nodes.n.concurrency",
            "order does not apply",
            "control.collect",
        ),
        (
            "demo.ask",
            {"concurrency": {"max": 2, "max_queued_per_key": 5}},
            "nodes.n.concurrency",
            "no effect without order by_key",
            "add order: by_key",
        ),
        (
            "demo.quiet",
            {"timeout": "1s", "settings": {"allow_weaker": True}},
            "nodes.n.timeout",
            "answers for rows when they enter",
            "settles='explicit'",
        ),
        (
            "demo.clean",
            {"settings": {"limits": {"types": {"demo.clean": 2}}}},
            "settings.limits.types['demo.clean']",
            "no effect on type 'demo.clean'",
            "coroutines",
        ),
        ("demo.all", {"max_children": 2}, "nodes.n.max_children", "does not apply", "only a generator"),
        ("demo.ask", {"key": "record.id"}, "nodes.n.key", "no effect", "order: by_key"),
        ("demo.ask", {"concurrency": {"order": "by_key"}}, "nodes.n.concurrency", "needs a key", "add key"),
        (
            "demo.ask",
            {"key": "recrd.id", "concurrency": {"order": "by_key"}},
            "nodes.n.key",
            "does not compile",
            "",
        ),
        ("demo.ask", {"resource": "gpu"}, "nodes.n.resource", "names no resource", "limits"),
        (
            "demo.embed",
            {"batch": 50, "settings": {"max_in_flight": 10}},
            "nodes.n.batch",
            "never fills: only 10",
            "raise settings.max_in_flight",
        ),
    ],
)
def test_a_node_that_cannot_work_is_named(
    type_name: str, options: dict[str, Any], path: str, part: str, remedy: str
) -> None:
    problem = problems(with_node(type_name, **options))[0]
    assert problem.path.startswith(path)
    assert part in problem.message
    assert remedy in problem.remedy


def test_a_key_sees_the_row_and_the_first_input() -> None:
    options = {"concurrency": {"order": "by_key"}, "key": "string(record.id) + value"}
    key = graph(with_node("demo.ask", **options)).nodes["n"].key
    assert key is not None
    assert key(record={"id": 1}, value="x") == "1x"


def test_an_operator_that_settles_on_entry_breaks_the_promise() -> None:
    problem = only(with_node("demo.quiet"))
    assert "weaker than at_least_once" in problem.message
    assert "allow_weaker" in problem.remedy
    (warning,) = graph(with_node("demo.quiet", settings={"allow_weaker": True})).warnings
    assert warning.severity == "warning"
    assert graph(with_node("demo.quiet", settings={"delivery": "at_most_once"})).warnings == ()


# --- connections ---


@pytest.mark.parametrize(
    ("source", "target", "options", "part", "remedy"),
    [
        ("tickets.uot", "n", {}, "no output port 'uot'", "out"),
        ("tickets.out.text", "n.txet", {}, "no input port 'txet'", "'text'"),
        ("tickets.out.txt", "n", {}, "Ticket has no field 'txt'", "'text'"),
        ("tickets.out.text.first", "n", {}, "str has no field 'first'", "convert it"),
        ("tickets.out.id", "n", {}, "takes str, but tickets.out.id gives int", "in between"),
        ("tickets", "n", {}, "takes str, but tickets.out gives Ticket", "such as tickets.out.text"),
        ("tickets.out.text", "n", {"when": "vlaue > 1"}, "does not compile", ""),
        ("tickets.out.text", "n", {"when": "'text'"}, "true or false", ""),
        ("tickets.out.text", "n", {"otherwise": True}, "'else' needs another connection", "add one"),
        ("out", "n", {}, "'out' is a sink (demo.out); nothing leaves it", "before it"),
        ("out", "n", {"kind": "error"}, "'out' is a sink", "before it"),
        ("n", "tickets", {}, "'tickets' is a source (demo.tickets)", "sink"),
        ("n", "out", {"kind": "control"}, "'out' is a sink and needs a value", "data connection"),
        ("tickets", "tick", {}, "takes no input", "kind: control"),
        ("n", "join", {}, "has 2 input ports", "left, right"),
    ],
)
def test_a_connection_that_cannot_work_is_named(
    source: str, target: str, options: dict[str, Any], part: str, remedy: str
) -> None:
    workflow = started()
    workflow.add("demo.clean", id="n")
    workflow.add("demo.out", id="out")
    workflow.add("demo.tick", id="tick")
    workflow.add("demo.join", id="join")
    workflow.connect("tickets", "out")
    workflow.connect("tickets", "tick", kind="control")
    workflow.connect("tickets.out.text", "join.left")
    workflow.connect("tickets.out.id", "join.right")
    if target.partition(".")[0] != "n":
        workflow.connect("tickets.out.text", "n")
    workflow.connect(source, target, **options)
    problem = only(workflow)
    assert problem.path.startswith("connections[")
    assert part in problem.message
    assert remedy in problem.remedy
    assert problem.value is not None


def test_an_error_port_cannot_leave_an_operator_that_settles_on_entry() -> None:
    workflow = with_node("demo.quiet", settings={"delivery": "at_most_once"})
    workflow.add("demo.out", id="out")
    workflow.connect("n", "out", kind="error")
    assert "no row can fail in it" in only(workflow).message


def test_errors_and_control_carry_no_declared_type() -> None:
    workflow = with_node("demo.clean")
    workflow.add("demo.out", id="dead")
    workflow.add("demo.tick", id="tick")
    workflow.connect("n.error", "dead")
    workflow.connect("n", "tick", kind="control")
    error, control = graph(workflow).connections[1:]
    assert (error.kind, error.from_port, error.to_port) == ("error", "error", "value")
    assert (control.kind, control.to_port) == ("control", None)


def test_batches_and_gathers_take_one_row_per_item() -> None:
    graph(with_node("demo.embed"))
    graph(with_node("demo.all"))
    workflow = started()
    workflow.add("demo.embed", id="n")
    workflow.connect("tickets.out.id", "n")
    assert "takes str, but tickets.out.id gives int" in only(workflow).message


def test_a_filter_gives_the_type_it_takes() -> None:
    @node("demo.short", kind="filter")
    def short(text: str) -> bool:
        return len(text) < 3

    workflow = started()
    workflow.add(short, id="short")
    workflow.add("demo.size", id="size")
    workflow.connect("tickets.out.text", "short")
    workflow.connect("short", "size")
    assert len(graph(workflow).nodes) == 3


# --- the whole ---


def test_a_cycle_is_named_node_by_node() -> None:
    workflow = started()
    for name in ("a", "b", "c"):
        workflow.add("demo.clean", id=name)
    workflow.connect("tickets.out.text", "a")
    workflow.chain("a", "b", "c", "a")
    problem = only(workflow)
    assert "cycle: a -> b -> c -> a" in problem.message
    assert problem.path == "connections[3]"  # the one that leads back


def test_cycles_are_named_until_none_would_be_left() -> None:
    workflow = started()
    for name in ("a", "b", "c", "d", "e"):
        workflow.add("demo.clean", id=name)
    workflow.connect("tickets.out.text", "a")
    workflow.chain("a", "b", "c", "a")
    workflow.chain("c", "b")
    workflow.chain("d", "e", "d")
    found = [problem for problem in problems(workflow) if "cycle" in problem.message]
    remedies = [problem.remedy.partition(",")[0] for problem in found]
    assert remedies == ["remove c -> a", "remove c -> b", "remove e -> d"]


def test_a_required_input_nothing_fills_is_named_in_a_stream() -> None:
    workflow = with_node("demo.clean")
    workflow.add("demo.join", id="join")
    workflow.connect("n", "join.left")
    problem = only(workflow)
    assert problem.path == "nodes.join"
    assert "input 'right' of 'join' (demo.join) is required, not connected" in problem.message
    assert problem.remedy == "connect it: ... -> join.right"


def test_a_node_no_source_leads_to_is_named_once_per_branch() -> None:
    workflow = with_node("demo.clean")
    workflow.add("demo.tick", id="tick")
    workflow.add("demo.out", id="out")
    workflow.connect("tick", "out")
    problem = only(workflow)
    assert problem.path == "nodes.tick"
    assert "no source leads to 'tick', and 1 after it" in problem.message
    assert "kind: control" in problem.remedy


def test_a_fault_is_not_reported_twice() -> None:
    """A node behind an unknown type or a refused connection is not called unconnected, too."""
    workflow = started()
    workflow.add("demo.nothing", id="unknown")
    workflow.add("demo.clean", id="a")
    workflow.add("demo.clean", id="b")
    workflow.connect("tickets.out.text", "unknown")
    workflow.connect("unknown", "a")
    workflow.connect("a", "b")
    assert only(workflow).path == "nodes.unknown.type"


def test_an_empty_workflow_is_refused() -> None:
    assert only(Workflow("w")).message == "the workflow has no nodes"


def test_warnings_do_not_stop_a_workflow() -> None:
    workflow = with_node("demo.clean", settings={"limits": {"types": {"demo.clena": 2}}})
    workflow.add("demo.tickets", id="idle")
    second, first = graph(workflow).warnings
    assert "no node of this workflow has type 'demo.clena'" in first.message
    assert "'idle' is connected to nothing" in second.message
    assert {first.severity, second.severity} == {"warning"}


def test_all_problems_come_at_once_with_file_and_line() -> None:
    workflow = Workflow("w")
    workflow.add("demo.tickets", id="tickets", config={"pth": "x"})
    workflow.add("demo.claen", id="a")
    workflow.add("demo.clean", id="b", config={"most": 0}, timeout="1s")
    workflow.add("demo.size", id="c")
    workflow.connect("tickets.out.id", "b", when="nothing > 1")
    workflow.connect("b", "c.txt")
    marks = {
        ("nodes", "tickets", "config", "pth"): Mark("w.yaml", 3),
        ("nodes", "a"): Mark("w.yaml", 4),
        ("connections", 0): Mark("w.yaml", 9),
    }
    found = problems(workflow, marks=marks, source_file="w.yaml")
    assert [(problem.path, problem.line) for problem in found] == [
        ("nodes.b.config.most", None),
        ("nodes.b.timeout", None),
        ("connections[1]", None),
        ("nodes.tickets.config.pth", 3),
        ("nodes.a.type", 4),
        ("connections[0].when", 9),
        ("connections[0]", 9),
    ]
    assert {problem.file for problem in found} == {"w.yaml"}
    assert str(found[4]).startswith("w.yaml:4: nodes.a.type: unknown node type 'demo.claen'")


def test_ten_thousand_nodes_in_a_chain_do_not_recurse_and_do_not_take_long() -> None:
    workflow = started()
    before, port = "tickets.out.text", ""
    for index in range(9_999):
        workflow.add("demo.clean", id=f"n{index}", config={"most": 1 + index % 7})
        workflow.connect(before + port, f"n{index}", when='value != ""')
        before = f"n{index}"
    began = time.monotonic()
    assert len(graph(workflow).nodes) == 10_000
    assert time.monotonic() - began < 20  # a bound against quadratic work, no claim of speed


def test_a_wrong_chain_of_a_thousand_nodes_reports_each() -> None:
    workflow = started()
    for index in range(999):
        workflow.add(f"demo.nothing{index}", id=f"n{index}")
    assert len(problems(workflow)) == 999 + 1


KINDS: list[ConnectionKind | None] = [None, None, None, "control", "error"]


@given(st.data(), st.sampled_from(["stream", "request"]))
def test_any_workflow_is_resolved_or_refused_with_problems(data: st.DataObject, mode: Any) -> None:
    """Never another exception, and what is resolved is acyclic, its ports known."""
    workflow = Workflow("w")
    types = st.sampled_from([*REGISTRY.types(), "demo.nothing"])
    configs = st.sampled_from([{}, {"when": "value.id > 1"}, {"fields": {"a": "value"}}, {"most": "x"}])
    count = data.draw(st.integers(1, 6))
    for index in range(count):
        workflow.add(data.draw(types), id=f"n{index}", config=data.draw(configs))
    ends = st.integers(0, count - 1).map("n{}".format)
    ports = st.sampled_from(["", ".out", ".out.text", ".error", ".text", ".value", ".left"])
    whens = st.sampled_from([None, None, "value > 1", "record.x == ", "true"])
    for _ in range(data.draw(st.integers(0, 8))):
        try:
            source, target = data.draw(ends) + data.draw(ports), data.draw(ends) + data.draw(ports)
            workflow.connect(source, target, when=data.draw(whens), kind=data.draw(st.sampled_from(KINDS)))
        except (WorkflowError, ConnectionSyntaxError):
            continue
    try:
        found = graph(workflow, mode=mode)
    except ValidationFailedError as refused:
        first = refused.problems[0]
    else:
        order = {name: index for index, name in enumerate(found.nodes)}
        for each in found.connections:
            assert order[each.from_node] < order[each.to_node]
            assert each.to_port is None or found.nodes[each.to_node].definition.input(each.to_port)
        return
    assert first.severity == "error"
    assert first.path
