"""Pieces of an answer make the whole, however it was cut."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.answers import Assembly, Delta, Generation, RateLimits, ToolCallDelta, Usage
from flowcore.llm.messages import Message, ToolCall

texts = st.text(max_size=12)
names = st.text(alphabet="abc_", min_size=1, max_size=6)
calls = st.builds(ToolCall, id=names, name=names, arguments=texts)
usages = st.builds(Usage, input_tokens=st.integers(0, 99), output_tokens=st.integers(0, 99))
answers = st.builds(
    Generation,
    text=texts,
    reasoning=texts,
    tool_calls=st.lists(calls, max_size=3).map(tuple),
    finish=st.sampled_from(["stop", "length", "tool_calls", "other"]),
    usage=st.none() | usages,
    model=texts,
    id=texts,
    limits=st.none() | st.builds(RateLimits, requests=st.integers(0, 9)),
)


def pieces_of(answer: Generation, data: st.DataObject) -> list[Delta]:
    """The answer in pieces: each text cut anywhere, kinds of pieces in any order that keeps their own."""

    def cut(text: str) -> list[str]:
        places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
        return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]

    lines: list[list[Delta]] = [
        [Delta(text=text) for text in cut(answer.text)],
        [Delta(reasoning=text) for text in cut(answer.reasoning)],
        [Delta(model=answer.model, id=answer.id, limits=answer.limits)],
    ]
    for index, call in enumerate(answer.tool_calls):
        begin = ToolCallDelta(index=index, id=call.id, name=call.name)
        rest = [ToolCallDelta(index=index, arguments=text) for text in cut(call.arguments)]
        lines.append([Delta(tool_calls=(piece,)) for piece in (begin, *rest)])
    pieces: list[Delta] = []
    while any(lines):
        line = data.draw(st.sampled_from([line for line in lines if line]))
        pieces.append(line.pop(0))
    return [*pieces, Delta(finish=answer.finish, usage=answer.usage)]


@given(answer=answers, data=st.data())
def test_any_cut_of_an_answer_makes_the_same_whole(answer: Generation, data: st.DataObject) -> None:
    whole = Assembly()
    for piece in pieces_of(answer, data):
        assert whole.finish is None
        whole.add(piece)
    assert whole.whole() == answer
    assert whole.finish == answer.finish


def test_what_has_not_ended_is_other_and_the_last_usage_counts() -> None:
    whole = Assembly()
    whole.add(Delta(text="a", usage=Usage(input_tokens=1)))
    whole.add(Delta(usage=Usage(input_tokens=1, output_tokens=5)))
    assert whole.whole() == Generation(text="a", finish="other", usage=Usage(input_tokens=1, output_tokens=5))


@given(one=usages, other=usages)
def test_usage_adds_up(one: Usage, other: Usage) -> None:
    both = one.plus(other)
    assert both.total_tokens == one.total_tokens + other.total_tokens
    assert both == other.plus(one)


@given(answers)
def test_an_answer_is_the_next_turn_and_survives_json(answer: Generation) -> None:
    assert answer.message() == Message(role="assistant", content=answer.text, tool_calls=answer.tool_calls)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Generation) == answer
