"""The content hash: equal for what is equal, in any process and any order of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.messages import ImagePart, Message, OutputSchema, TextPart, Tool, system, user
from flowcore.llm.requests import EmbedRequest, GenerateRequest, content_hash

REQUEST = GenerateRequest(
    model="m",
    messages=(system("s"), Message(role="user", content=(TextPart("t"), ImagePart(data=b"\x00\xff")))),
    tools=(Tool(name="t", description="d", parameters={"type": "object", "properties": {}}),),
    output=OutputSchema(name="o", schema={"a": 1, "b": [1, 2]}),
    temperature=0.0,
    extra={"x": {"b": 1, "a": 2}},
)


def test_the_hash_is_stable() -> None:
    """A changed hash would make every cache and journal forget; change it on purpose only."""
    request = GenerateRequest(model="m", messages=(user("hello"),), temperature=0.0)
    assert content_hash(request) == content_hash(request)
    assert content_hash(request) == "8f5301b2dc50f22db451534dbed33f1218f4e7cc933c6aeb1629ed7aa5db89eb"


def test_the_order_of_keys_does_not_count() -> None:
    turned = GenerateRequest(
        model=REQUEST.model,
        messages=REQUEST.messages,
        tools=(Tool(name="t", description="d", parameters={"properties": {}, "type": "object"}),),
        output=OutputSchema(name="o", schema={"b": [1, 2], "a": 1}),
        temperature=0.0,
        extra={"x": {"a": 2, "b": 1}},
    )
    assert content_hash(turned) == content_hash(REQUEST)


def test_everything_that_is_asked_counts() -> None:
    hashes = {
        content_hash(REQUEST),
        content_hash(REQUEST, "openai|-|m|tag"),
        content_hash(GenerateRequest(model="m", messages=(user("a"),))),
        content_hash(GenerateRequest(model="n", messages=(user("a"),))),
        content_hash(GenerateRequest(model="m", messages=(user("a"),), seed=1)),
        content_hash(GenerateRequest(model="m", messages=(system("a"),))),
        content_hash(EmbedRequest(model="m", texts=("a",))),
        content_hash(EmbedRequest(model="m", texts=("a", "b"))),
        content_hash(EmbedRequest(model="m", texts=("ab",))),
    }
    assert len(hashes) == 9


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_two_lists_of_texts_have_one_hash_only_when_they_are_equal(one: list[str], other: list[str]) -> None:
    hashes = [content_hash(EmbedRequest(model="m", texts=tuple(texts))) for texts in (one, other)]
    assert (hashes[0] == hashes[1]) == (one == other)


def test_what_json_cannot_hold_has_no_hash() -> None:
    with pytest.raises(TypeError):
        content_hash(GenerateRequest(model="m", messages=(), extra={"x": object()}))
