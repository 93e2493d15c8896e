"""What a program gives the runtime is refused where it is given, with what to write instead."""

from __future__ import annotations

import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from flowcore import Gather, NodeContext, Workflow, node
from flowcore.errors import DefinitionError, ValidationFailedError
from flowruntime import FlowRuntime, run
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual, wait


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_parallel": 0}, "max_parallel: must be a whole number of at least 1"),
        ({"limits": {"type:http.request": 0}}, "must be a whole number of at least 1"),
        ({"limits": {"http.request": 3}}, "limits nothing; write type:NODE_TYPE or resource:NAME"),
        ({"history": -1}, "history: must be a whole number from 0"),
        ({"watchdog": 0.1}, r"watchdog: must be a duration with a unit \(got 0.1\); give it a unit: '0.1s'"),
        ({"seed": "x"}, "seed: must be a whole number"),
    ],
)
def test_wrong_options_of_a_runtime(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationFailedError, match=message):
        FlowRuntime(**options)


def test_all_wrong_options_are_listed() -> None:
    with pytest.raises(ValidationFailedError, match="2 problems"):
        FlowRuntime(max_parallel=0, history=-1)


def test_a_secret_that_is_no_text_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationFailedError, match=r"secrets\.pin: must be text, not a whole number$"):
        FlowRuntime(secrets=cast("Any", {"pin": 1234}))


@pytest.mark.parametrize("nodes", [types.ModuleType("mine"), "mine", same, 5])
def test_nodes_is_a_list(nodes: Any) -> None:
    with pytest.raises(DefinitionError, match=r"nodes=\[...\]"):
        FlowRuntime(nodes=nodes)


def test_a_duration_may_be_written_as_in_a_file() -> None:
    FlowRuntime(watchdog="250ms")


def one(thing: Any = same) -> Workflow:
    wf = Workflow("one")
    wf.add(thing, id="n")
    return wf


@virtual
async def test_a_workflow_is_expected_where_one_is_expected() -> None:
    async with runtime() as rt:
        for call in (rt.execute, rt.start):
            with pytest.raises(
                DefinitionError, match=r"a Workflow is expected, not 'one.yaml'; load_workflow"
            ):
                await cast("Callable[[Any], Any]", call)("one.yaml")


@pytest.mark.parametrize("timeout", [2.0, "soon", timedelta(0)])
@virtual
async def test_a_timeout_without_a_unit_is_refused(timeout: Any) -> None:
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match="timeout: must be"):
            await rt.execute(one(), {"value": 1}, timeout=timeout)


@virtual
async def test_a_timeout_may_be_written_as_in_a_file() -> None:
    async with runtime() as rt:
        result = await rt.execute(one(wait), {"seconds": 10.0}, timeout="2s")
    assert "did not finish within 2.0 s" in str(result.cause)


@pytest.mark.parametrize("record", [0, "", [], False])
@virtual
async def test_the_record_of_a_source_may_be_anything_that_is_false(record: Any) -> None:
    wf = Workflow("false")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="n"))
    async with runtime() as rt:
        result = await rt.execute(wf, record)
    assert result.outputs["n"] == {"out": record}


@virtual
async def test_a_run_without_a_source_says_what_to_do_instead() -> None:
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match=r"has no source.*use execute\(workflow, inputs\)"):
            await rt.start(one())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit: must be a whole number of at least 1"),
        ({"sources": {"S": Script([[1]])}}, "unknown source node 'S'; did you mean 's'"),
        ({"sources": {"s": [1, 2]}}, r"must be a Source \(got \[1, 2\]\); for values use scripted"),
        ({"sources": [1]}, "must be a mapping from node id to a Source"),
    ],
)
@virtual
async def test_wrong_options_of_a_run(options: dict[str, Any], message: str) -> None:
    wf = Workflow("run")
    wf.chain(wf.add(Script, id="s"), wf.add(kept(), id="k"))
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match=message):
            await rt.start(wf, **options)


@node("options.named")
def named(workflow: str) -> str:
    return workflow


def test_an_input_may_be_called_like_a_parameter_of_run() -> None:
    assert run(one(named), workflow="x").outputs["n"]["out"] == "x"


@node("options.sleepy")
async def sleepy(value: Any, ctx: NodeContext) -> float:
    await ctx.sleep(value)
    return now()


@virtual
async def test_a_node_that_sleeps_a_bare_number_is_told_to_give_it_a_unit() -> None:
    async with runtime() as rt:
        result = await rt.execute(one(sleepy), {"value": 0.5})
        assert "give it a unit: '0.5s'" in str(result.errors["n"][0])
        assert (await rt.execute(one(sleepy), {"value": "2s"})).outputs["n"] == {"out": 2.0}
        assert (await rt.execute(one(sleepy), {"value": timedelta(seconds=-1)})).outputs["n"] == {"out": 2.0}


@node("options.gathered")
def gathered(values: Gather[str]) -> list[str]:
    return values


@pytest.mark.parametrize("inputs", [{"values": "abc"}, {"n": {"values": "abc"}}, {"values": None}])
@virtual
async def test_a_gathering_port_is_given_a_list(inputs: dict[str, Any]) -> None:
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match=r"input\.n\.values: takes a list"):
            await rt.execute(one(gathered), inputs)
        assert (await rt.execute(one(gathered), {"values": ["abc"]})).outputs["n"] == {"out": ["abc"]}
