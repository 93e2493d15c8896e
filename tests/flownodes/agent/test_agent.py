"""agent.run: turns, tools of every kind, their errors, limits, and messages between agents."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import NodeContext, Workflow, node
from flowcore.errors import ConfigError, LimitExceededError, ValidationFailedError
from flowcore.llm.errors import ToolArgumentsError, UnknownToolError
from flowruntime import FlowRuntime, RunResult
from flowruntime.testing import run_virtual

AGENT = "agent"


@node("geo.weather")
def weather(city: str, days: int = 1) -> dict[str, Any]:
    """How the weather will be in a city."""
    if city == "Atlantis":
        raise LookupError("no such city")
    return {"city": city, "days": days, "sun": True}


@node("geo.slow")
async def slow(city: str, ctx: NodeContext) -> str:
    """Takes a second."""
    await ctx.sleep(timedelta(seconds=1))
    return city


def wants(tool: str, arguments: Any, **rule: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": tool, "arguments": arguments}], **rule}


def agent(wf: Workflow, answers: list[dict[str, Any]], *, id: str = AGENT, **config: Any) -> None:
    options = {"answers": answers, "otherwise": "fail"}
    wf.add("agent.run", id=id, config={"provider": "scripted", "model": "m", "options": options, **config})


async def run(
    answers: list[dict[str, Any]], *, runtime: dict[str, Any] | None = None, **config: Any
) -> RunResult:
    """One question to one agent."""
    wf = Workflow("agents")
    config = {"tools": [{"type": "geo.weather"}], **config}
    agent(wf, answers, **config)
    async with FlowRuntime(nodes=[weather, slow], **(runtime or {})) as rt:
        return await rt.execute(wf, {AGENT: {"value": "Sun in Rome?"}})


def answer_of(result: RunResult) -> dict[str, Any]:
    result.raise_for_state()
    return result.outputs[AGENT]


async def test_a_tool_is_used_and_its_result_told() -> None:
    out = answer_of(
        await run(
            [
                {"when": '"sun":true', "text": "Yes."},
                wants("geo_weather", {"city": "Rome", "days": 2}, when="Rome"),
            ]
        )
    )
    assert out["out"] == "Yes."
    assert out["report"]["turns"] == 2
    assert out["report"]["tools"] == ["geo_weather"]
    assert [turn["role"] for turn in out["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert out["messages"][2]["content"] == '{"city":"Rome","days":2,"sun":true}'


@pytest.mark.parametrize(
    ("tool", "arguments", "told", "error"),
    [
        ("geo_weather", {"town": "Rome"}, "arguments.city is required", ToolArgumentsError),
        ("geo_weather", {"city": 5}, "arguments.city must be of type string", ToolArgumentsError),
        ("geo_weather", '{"city": ', "not JSON", ToolArgumentsError),
        ("geo_wether", {"city": "Rome"}, "did you mean 'geo_weather'", UnknownToolError),
        ("geo_weather", {"city": "Atlantis"}, "no such city", LookupError),
    ],
)
async def test_what_goes_wrong_with_a_tool_is_told_to_the_model_or_fails_the_row(
    tool: str, arguments: Any, told: str, error: type[Exception]
) -> None:
    answers = [{"when": told, "text": "I cannot tell."}, wants(tool, arguments, when="Rome?")]
    out = answer_of(await run(answers))
    assert out["out"] == "I cannot tell."
    assert out["messages"][2]["is_error"] is True
    result = await run(answers, on_tool_error="fail")
    assert isinstance(result.errors[AGENT][0], error)


@pytest.mark.parametrize("capability", ["tools", "parallel_tools"])
async def test_a_tool_that_fails_the_row_fails_it_with_its_own_error(capability: str) -> None:
    """Also of several tools at once."""
    calls = [{"name": "geo_weather", "arguments": {"city": city}} for city in ("Rome", "Atlantis")]
    result = await run([{"tool_calls": calls}], on_tool_error="fail", capabilities=[capability])
    assert [type(error) for error in result.errors[AGENT]] == [LookupError]


async def test_an_agent_stops_at_what_it_may_cost() -> None:
    """The price list is the runtime's; what is not in it counts nothing."""
    prices = {"m": {"input": 1_000_000.0, "output": 1_000_000.0}}  # a dollar a token
    config: dict[str, Any] = {"limits": {"usd": 30, "turns": 100, "tool_calls": 100}}
    result = await run([wants("geo_weather", {"city": "Rome"})], runtime={"prices": prices}, **config)
    error: Any = result.errors[AGENT][0]
    assert isinstance(error, LimitExceededError)
    assert error.facts()["limit"] == "usd"
    done = answer_of(await run([{"text": "Yes."}], runtime={"prices": prices}))
    assert done["report"]["cost_usd"] == pytest.approx(4.0)  # 3 tokens asked, 1 answered


async def test_a_workflow_is_a_tool_with_its_open_inputs_as_arguments(tmp_path: Path) -> None:
    (tmp_path / "refund.yaml").write_text(
        "name: refund\ndescription: Pays money back.\n"
        "nodes:\n  letter: {type: text.template, config: {template: 'paid {amount} to {who}'}}\n"
        "  clean: {type: text.clean}\nconnections: [letter -> clean]\n"
    )
    out = answer_of(
        await run(
            [
                {"when": "paid 3 to Ann", "text": "done"},
                wants("refund", {"value": {"amount": 3, "who": "Ann"}}, when="Rome"),
            ],
            tools=[{"workflow": str(tmp_path / "refund.yaml")}],
            runtime={"roots": [str(tmp_path)]},
        )
    )
    assert out["out"] == "done"


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"type": "geo.nowhere"}], "geo.nowhere"),
        ([{"type": "files.source", "config": {"path": "x"}}], "is no tool"),
        ([{"type": "geo.weather"}, {"type": "geo.weather"}], "two tools are called"),
        ([{"workflow": "/no/such/file.yaml"}], "file.yaml"),
    ],
)
async def test_a_tool_that_cannot_be_bound_fails_the_row_with_its_name(
    tools: list[dict[str, Any]], message: str
) -> None:
    result = await run([{"text": "x"}], tools=tools, runtime={"roots": ["/no/such"]})
    assert message in str(result.errors[AGENT][0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tools": [dict[str, str]()]}, "a node type or a workflow"),
        ({"tools": [{"type": "a.b", "workflow": "x"}]}, "a node type or a workflow"),
        ({"capabilities": list[str]()}, "may not use any"),
        ({"capabilities": ["tools", "messages"]}, "name whom the agent may write to"),
        ({"limits": {"turns": 0}}, "at least 1"),
    ],
)
async def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationFailedError, match=message):
        await run([], **config)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [({"turns": 3}, "turns"), ({"tool_calls": 2}, "tool_calls"), ({"tokens": 20}, "tokens")],
)
async def test_an_agent_that_never_answers_reaches_its_limit(limits: dict[str, Any], limit: str) -> None:
    result = await run([wants("geo_weather", {"city": "Rome"})], limits=limits)
    error: Any = result.errors[AGENT][0]
    assert isinstance(error, LimitExceededError)
    assert error.facts()["limit"] == limit


def test_the_time_an_agent_has_is_bounded() -> None:
    async def scenario() -> RunResult:
        return await run(
            [wants("geo_slow", {"city": "Rome"})],
            tools=[{"type": "geo.slow"}],
            limits={"turns": 100, "tool_calls": 100, "time": "2500ms"},
        )

    result = run_virtual(scenario())
    error: Any = result.errors[AGENT][0]
    assert isinstance(error, LimitExceededError)
    facts = error.facts()
    assert (facts["limit"], facts["turns"], facts["tool_calls"]) == ("time", 3, 3)


def test_tools_of_one_turn_run_at_once_where_the_agent_may() -> None:
    answers = [
        {"when": "Oslo", "text": "both"},
        {"tool_calls": [{"name": "geo_slow", "arguments": {"city": city}} for city in ("Rome", "Oslo")]},
    ]

    async def scenario(capability: str) -> float:
        began = asyncio.get_running_loop().time()
        answer_of(await run(answers, tools=[{"type": "geo.slow"}], capabilities=[capability]))
        return asyncio.get_running_loop().time() - began

    assert run_virtual(scenario("parallel_tools")) == pytest.approx(1.0, abs=0.1)
    assert run_virtual(scenario("tools")) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("limit", [{"max_parallel": 1}, {"limits": {"type:agent.run": 1}}])
async def test_an_agent_never_waits_for_the_permit_it_holds_itself(limit: dict[str, Any]) -> None:
    """However low a limit is: the row's own permit stands for its tools."""
    out = answer_of(
        await run(
            [{"when": "sun", "text": "Yes."}, wants("geo_weather", {"city": "Rome"}, when="Rome")],
            runtime=limit,
        )
    )
    assert out["out"] == "Yes."


async def test_agents_of_one_execution_write_to_each_other() -> None:
    wf = Workflow("team")
    agent(
        wf,
        [
            {"when": "42", "text": "the answer is 42"},
            wants("read_messages", {"wait_s": 30}, when="sent"),
            wants("send_message", {"to": "thinker", "text": "what is six times seven?"}),
        ],
        id="asker",
        capabilities=["messages"],
        peers=["thinker"],
    )
    agent(
        wf,
        [
            {"when": "sent", "text": "answered"},
            wants("send_message", {"to": "asker", "text": "42"}, when="six times seven"),
            wants("read_messages", {"wait_s": 30}),
        ],
        id="thinker",
        capabilities=["messages"],
        peers=["asker"],
    )
    async with FlowRuntime() as rt:
        result = await rt.execute(wf, {"asker": {"value": "go"}, "thinker": {"value": "listen"}})
    result.raise_for_state()
    assert result.outputs["asker"]["out"] == "the answer is 42"
    assert result.outputs["thinker"]["out"] == "answered"


async def test_a_tool_is_cancelled_with_its_agent() -> None:
    wf = Workflow("agents")
    agent(wf, [wants("geo_slow", {"city": "Rome"})], tools=[{"type": "geo.slow"}])
    async with FlowRuntime(nodes=[slow]) as rt:
        task = asyncio.create_task(rt.execute(wf, {AGENT: {"value": "x"}}))
        while rt.statistics()["requests"]["in_progress"] < 2:  # noqa: ASYNC110 - it happens in some turns of the loop
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(20):
            await asyncio.sleep(0)
        assert rt.statistics()["requests"]["in_progress"] == 0


def test_a_workflow_takes_no_config_as_a_tool() -> None:
    from flowcore.llm.tools import ToolSpec

    with pytest.raises(ConfigError, match="takes no config"):
        ToolSpec(workflow="x.yaml", config={"a": 1})
