"""llm.generate, llm.chat, llm.extract, llm.classify and llm.stream, run with the scripted provider."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import NodeEvent, Workflow
from flowcore.errors import LimitExceededError, MissingFieldError, ValidationFailedError
from flowcore.llm.errors import AuthenticationError, ContentRefusedError, OutputInvalidError
from flowruntime import FlowRuntime, RunResult

NODE = "ask"


def workflow(kind: str, answers: list[dict[str, Any]], **config: Any) -> Workflow:
    """A workflow of one node that asks the scripted provider."""
    wf = Workflow(kind)
    script = {"answers": answers, "otherwise": "fail" if answers else "echo"}
    wf.add(f"llm.{kind}", id=NODE, config={"provider": "scripted", "model": "m", "options": script, **config})
    return wf


async def run(kind: str, value: Any, answers: list[dict[str, Any]], **config: Any) -> RunResult:
    """One row, through the port the node has."""
    port = {"generate": "value", "stream": "value", "chat": "messages"}.get(kind, "text")
    async with FlowRuntime() as rt:
        return await rt.execute(workflow(kind, answers, **config), {NODE: {port: value}})


async def gives(kind: str, value: Any, answers: list[dict[str, Any]], **config: Any) -> dict[str, Any]:
    """Its outputs, where the request succeeded."""
    result = await run(kind, value, answers, **config)
    result.raise_for_state()
    return result.outputs[NODE]


async def test_a_value_is_asked_and_the_text_comes_back_with_what_it_cost() -> None:
    out = await gives("generate", "hello", [{"when": "hello", "text": "hi"}])
    assert out["out"] == "hi"
    assert out["answer"] == {
        "text": "hi", "finish": "stop", "model": "scripted/m", "id": "scripted-1", "tool_calls": [],
        "usage": {
            "input_tokens": 2, "output_tokens": 1, "cached_tokens": 0, "cache_write_tokens": 0,
            "reasoning_tokens": 0,
        },
        "calls": 1,
    }  # fmt: skip


async def test_prompt_and_system_are_templates_of_the_row() -> None:
    row = {"name": "Ann", "days": 3}
    out = await gives(
        "generate", row, [], prompt="{{ name }} wants {{ days }}", system="Be kind to {{ name }}"
    )
    assert out["out"] == "Ann wants 3"


async def test_a_field_the_prompt_needs_and_the_row_lacks_fails_the_row() -> None:
    result = await run("generate", {"a": 1}, [], prompt="{{ b }}")
    assert isinstance(result.errors[NODE][0], MissingFieldError)


async def test_an_answer_cut_off_is_kept_or_fails_as_said() -> None:
    cut = [{"text": "half an ans", "finish": "length"}]
    assert (await gives("generate", "x", cut))["answer"]["finish"] == "length"
    result = await run("generate", "x", cut, truncated="fail")
    assert isinstance(result.errors[NODE][0], LimitExceededError)


@pytest.mark.parametrize("finish", ["content_filter", "refusal"])
async def test_a_refused_answer_fails_the_row(finish: str) -> None:
    result = await run("generate", "x", [{"text": "", "finish": finish}])
    assert isinstance(result.errors[NODE][0], ContentRefusedError)


async def test_what_the_provider_refuses_is_the_rows_error() -> None:
    result = await run("generate", "x", [{"error": {"kind": "AuthenticationError", "status": 401}}])
    error = result.errors[NODE][0]
    assert isinstance(error, AuthenticationError)
    assert error.facts()["status"] == 401


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prompt": "{{ a"}, "line 1 of the template"),
        ({"temperature": 3}, "at most 2"),
        ({"extra": {"stream": True}}, "stream cannot be set there"),
        ({"calls": {"limits": {"requests_per_minute": 0}}}, "at least 1"),
        ({"api_key": "sk-123"}, "never write the secret itself"),
        ({"fallback": [{"provider": "x"}]}, "model"),
        ({"calls": {"budgets": [{"name": "b"}]}}, "needs usd or tokens"),
    ],
)
async def test_a_wrong_configuration_is_refused_before_anything_runs(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationFailedError, match=message):
        await run("generate", "x", [], **config)


async def test_a_conversation_goes_on_with_the_answer_at_its_end() -> None:
    turns = [{"role": "user", "content": "one"}]
    out = await gives("chat", turns, [{"text": "two"}], system="Count")
    assert out["out"] == "two"
    assert out["messages"] == [
        {"role": "system", "content": "Count"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    again = await gives("chat", [*out["messages"], {"role": "user", "content": "three"}], [{"text": "four"}])
    assert [turn["content"] for turn in again["messages"]] == ["Count", "one", "two", "three", "four"]


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["name", "days"],
    "additionalProperties": False,
}


async def test_what_fits_the_schema_is_the_value() -> None:
    answers = [{"text": 'Here you are:\n```json\n{"name": "Ann", "days": 3}\n```'}]
    out = await gives("extract", "Ann wants 3 days off", answers, schema=SCHEMA)
    assert out["out"] == {"name": "Ann", "days": 3}
    assert out["answer"]["calls"] == 1


async def test_what_does_not_fit_is_told_and_asked_again() -> None:
    answers = [
        {"when": "value.days must be at least 1", "json": {"name": "Ann", "days": 3}},
        {"when": "no JSON", "json": {"name": "Ann", "days": 0}},
        {"text": "three days"},
    ]
    out = await gives("extract", "Ann wants 3 days off", answers, schema=SCHEMA)
    assert out["out"] == {"name": "Ann", "days": 3}
    assert out["answer"]["calls"] == 3
    assert out["answer"]["usage"]["input_tokens"] > 0


async def test_what_never_fits_fails_the_row_with_all_that_is_wrong() -> None:
    result = await run("extract", "x", [{"json": {"days": "3"}}], schema=SCHEMA, repairs=1)
    error = result.errors[NODE][0]
    assert isinstance(error, OutputInvalidError)
    facts = error.facts()
    assert facts["attempts"] == 2
    problems: Any = facts["problems"]
    assert any("value.days must be of type integer" in each for each in problems)
    assert any("value.name is required" in each for each in problems)


async def test_a_schema_that_could_not_be_checked_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValidationFailedError, match="not checked here"):
        await run("extract", "x", [], schema={"type": "object", "patternProperties": {}})


LABELS = {"fraud": "somebody else used it", "card": "anything else with cards", "other": "the rest"}


async def test_a_label_is_chosen_and_the_record_has_it() -> None:
    out = await gives("classify", "stolen!", [{"json": {"label": "fraud"}}], labels=LABELS)
    assert out["out"] == {"label": "fraud"}
    assert out["label"] == "fraud"


async def test_an_unknown_label_is_asked_for_again() -> None:
    answers = [
        {"when": "must be one of 'fraud', 'card', 'other'", "json": {"label": "card"}},
        {"json": {"label": "cards"}},
    ]
    out = await gives("classify", "my card", answers, labels=["fraud", "card", "other"])
    assert out["label"] == "card"
    assert out["answer"]["calls"] == 2


async def test_several_labels_may_be_chosen_or_none() -> None:
    out = await gives("classify", "x", [{"json": {"labels": ["card", "fraud"]}}], labels=LABELS, several=True)
    assert out["label"] == ["card", "fraud"]
    assert (await gives("classify", "x", [{"json": {"labels": []}}], labels=LABELS, several=True))[
        "label"
    ] == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"labels": ["one"]}, "at least 2"),
        ({"labels": ["a", "a"]}, "is there twice"),
        ({"labels": ["a", "b"], "examples": [{"text": "x", "label": "c"}]}, "none of the labels"),
    ],
)
async def test_labels_that_make_no_sense_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationFailedError, match=message):
        await run("classify", "x", [], **config)


async def test_a_stream_gives_the_pieces_as_a_value_and_as_events() -> None:
    wf = workflow("stream", [{"text": "abcdefgh", "pieces": 4}])
    wf.add("stream.collect", id="whole", config={"join": ""})
    wf.chain(NODE, "whole")
    async with FlowRuntime() as rt, rt.events.subscribe(kinds={NodeEvent}) as events:
        result = await rt.execute(wf, {NODE: {"value": "x"}})
        result.raise_for_state()
        assert result.outputs["whole"]["out"] == "abcdefgh"
        seen = [await anext(events) for _ in range(4)]
    assert [event.data for event in seen if isinstance(event, NodeEvent)] == ["ab", "cd", "ef", "gh"]


async def test_a_stream_that_breaks_fails_its_row() -> None:
    wf = workflow("stream", [{"text": "abcdefgh", "break_after": 2}])
    wf.add("stream.collect", id="whole", config={"join": ""})
    wf.chain(NODE, "whole")
    async with FlowRuntime() as rt:
        result = await rt.execute(wf, {NODE: {"value": "x"}})
    assert not result.ok
    assert "the scripted stream broke after 2 pieces" in str(result.errors)
