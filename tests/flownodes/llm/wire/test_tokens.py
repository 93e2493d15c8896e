"""Tokens, counted by tables where they are there, by characters where not."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.messages import ImagePart, Message, OutputSchema, TextPart, Tool, ToolCall, user
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flownodes.llm.wire.tokens import PER_IMAGE, PER_MESSAGE, Tables, count


class NoTables(Tables):
    def of(self, encoding: str) -> None:
        return None


@pytest.fixture(scope="module")
def tables() -> Tables:
    tables = Tables()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tables.load("o200k_base")
        tables.load("cl100k_base")
    return tables


def embed(*texts: str, model: str = "m") -> EmbedRequest:
    return EmbedRequest(model=model, texts=texts)


def test_tables_count_as_the_models_do(tables: Tables) -> None:
    assert count(embed("hello world"), tables) == 2
    assert count(embed("hello world", "hello world", model="text-embedding-3-small"), tables) == 4
    assert count(embed("世界" * 10, model="gpt-4"), tables) != count(
        embed("世界" * 10, model="gpt-4o"), tables
    )
    assert count(embed("<|endoftext|>"), tables) > 1


def test_without_tables_four_characters_are_a_token() -> None:
    assert count(embed("x" * 400), NoTables()) == 100
    assert count(embed("x" * 401), NoTables()) == 101
    assert count(embed(), NoTables()) == 1


def test_everything_of_a_request_counts() -> None:
    request = GenerateRequest(
        model="m",
        messages=(
            user("x" * 40),
            Message(role="user", content=(TextPart("y" * 40), ImagePart(data=b"0"))),
            Message(role="assistant", tool_calls=(ToolCall(id="1", name="find", arguments='{"a": 1}' * 10),)),
        ),
    )
    base = count(request, NoTables())
    assert base >= 10 + 10 + 20 + 3 * PER_MESSAGE + PER_IMAGE
    tool = Tool(name="t", description="d" * 40, parameters={"type": "object"})
    schema = OutputSchema(name="o", schema={"type": "object", "description": "z" * 400})
    whole = GenerateRequest(model="m", messages=request.messages, tools=(tool,), output=schema)
    assert count(whole, NoTables()) > base + 110


@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_text_counts_at_least_one(tables: Tables, text: str) -> None:
    assert count(embed(text), tables) >= 1
    assert count(embed(text), NoTables()) >= 1
