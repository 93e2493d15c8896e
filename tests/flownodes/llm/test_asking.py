"""What comes in becomes messages, or an error that says what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import WrongKindError
from flowcore.llm.messages import ImagePart, Message, TextPart, ToolCall, system, user
from flowcore.values import Json
from flownodes.llm.asking import asked, conversation
from flownodes.llm.chat import plain_message


def test_a_value_is_asked_as_it_is_or_in_its_template() -> None:
    assert asked(None, None, "hello") == (user("hello"),)
    assert asked(None, None, {"a": [1]}) == (user('{"a":[1]}'),)
    assert asked(None, None, 5) == (user("5"),)
    assert asked("Say {{ a }}", "Be {{ b }}", {"a": 1, "b": "kind"}) == (system("Be kind"), user("Say 1"))


@pytest.mark.parametrize("value", [None, b"bytes", object()])
def test_what_is_no_text_is_not_asked(value: object) -> None:
    with pytest.raises(WrongKindError, match="a prompt"):
        asked(None, None, value)


def test_a_conversation_is_read_from_plain_data() -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": ["a", {"type": "text", "text": "b"}, {"type": "image", "url": "https://x.test/i"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "content": "ok", "tool_call_id": "1"},
    ]  # fmt: skip
    read = conversation(turns)
    assert read[1].content == (TextPart("a"), TextPart("b"), ImagePart(url="https://x.test/i"))
    assert read[2].tool_calls == (ToolCall(id="1", name="f", arguments="{}"),)
    assert conversation(Json.of(turns)) == read
    assert conversation("hi") == conversation({"role": "user", "content": "hi"}) == (user("hi"),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "messages: expected a list of messages"),
        (5, "messages: expected a list of messages"),
        ([5], r"messages\[0\]: expected a message"),
        ([{"role": "robot"}], r"messages\[0\]\.role: expected one of system, user"),
        ([{"role": "user", "text": "x"}], r"messages\[0\]\.text: expected one of"),
        ([{"role": "user", "content": 5}], r"messages\[0\]\.content: expected text"),
        ([{"role": "user", "content": [{"type": "video"}]}], r"content\[0\]: expected a part"),
        ([{"role": "user", "content": [{"type": "image"}]}], "needs its bytes"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], r"messages\[0\]: expected a message \("),
        ([{"role": "tool", "tool_call_id": 5}], r"messages\[0\]: expected a message \("),
    ],
)
def test_what_is_no_conversation_is_an_error_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(WrongKindError, match=message):
        conversation(value)


@given(
    st.lists(
        st.builds(
            Message,
            role=st.sampled_from(["system", "user", "assistant"]),
            content=st.text()
            | st.lists(
                st.builds(TextPart, st.text()) | st.builds(ImagePart, data=st.binary()), min_size=1
            ).map(tuple),
            tool_calls=st.lists(
                st.builds(ToolCall, id=st.text(), name=st.text(), arguments=st.text()), max_size=2
            ).map(tuple),
        ),
        min_size=1,
    )
)
def test_messages_written_as_plain_data_are_read_as_they_were(messages: list[Message]) -> None:
    assert conversation([plain_message(each) for each in messages]) == tuple(messages)
