"""Configurations: every problem at once, each with its path, and no value changed in silence."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from flowcore.config import decode_config, read_secret, with_secrets
from flowcore.config_schema import config_schema
from flowcore.durations import format_duration
from flowcore.errors import ConfigError, Problem
from flowcore.expression import Expression, Template
from flowcore.policies import RetryPolicy
from flowcore.values import Secret, SecretRef


def hook(kind: type, value: object, path: tuple[str | int, ...]) -> object:
    del path
    if kind is Secret:
        return read_secret(value)
    if isinstance(value, str) and "?" in value:
        raise ValueError("does not compile")
    return kind(str(value), lambda: value)


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Inner(msgspec.Struct):
    size: Annotated[int, Meta(ge=1)]
    wait: timedelta | None = None


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Header(TypedDict, total=False):
    name: str


class Config(msgspec.Struct, kw_only=True):
    text: str
    lower: bool = True
    wait: timedelta = timedelta(seconds=2)
    waits: list[timedelta] = []
    inner: Inner | None = None
    many: Sequence[Inner] = ()
    kind: Literal["first", "second"] = "first"
    level: Level = Level.LOW
    when: Annotated[Expression, Meta(description="which rows")] | None = None
    shape: Template | None = None
    key: Secret | None = None
    headers: Mapping[str, str | Secret] = {}
    retry: RetryPolicy = RetryPolicy()
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.5
    either: int | str = 3
    pair: tuple[int, str] = (1, "a")
    names: set[str] = set()
    raw: bytes = b""
    pet: Cat | Dog | None = None
    at: datetime | None = None
    pattern: Annotated[str, Meta(pattern="^a", max_length=3)] = "a"
    header: Header = {}
    anything: Any = None


def decoded(**fields: object) -> Config:
    config = decode_config(Config, {"text": "t", **fields}, hook=hook)
    assert config is not None
    return config


def problems(**fields: object) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        decode_config(Config, {"text": "t", **fields}, path=("nodes", "n", "config"), hook=hook)
    return list(caught.value.__dict__["problems"])


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        ("wait", "500ms", timedelta(milliseconds=500)),
        ("wait", timedelta(0), timedelta(0)),
        ("waits", ["1s", "2m"], [timedelta(seconds=1), timedelta(minutes=2)]),
        ("inner", {"size": 2, "wait": "1s"}, Inner(2, timedelta(seconds=1))),
        ("inner", Inner(2), Inner(2)),
        ("many", [{"size": 1}], [Inner(1)]),
        ("level", "high", Level.HIGH),
        ("key", {"$secret": "API_KEY"}, SecretRef("API_KEY")),
        ("headers", {"a": "b", "c": {"$secret": "D"}}, {"a": "b", "c": SecretRef("D")}),
        ("retry", {"max_attempts": 5}, RetryPolicy(max_attempts=5)),
        ("ratio", 1, 1.0),
        ("either", "x", "x"),
        ("either", 4, 4),
        ("pair", [2, "b"], (2, "b")),
        ("names", ["a", "a"], {"a"}),
        ("raw", {"$bytes": "YWI="}, b"ab"),
        ("pet", {"type": "dog", "name": "Rex"}, Dog("Rex")),
        ("at", "2024-01-02T03:04:05", datetime(2024, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - as written
        ("header", {"name": "x"}, {"name": "x"}),
        ("anything", {"deep": [1, None]}, {"deep": [1, None]}),
    ],
)
def test_a_field_takes_its_plain_form(name: str, given_value: object, expected: object) -> None:
    field = getattr(decoded(**{name: given_value}), name)
    assert field == expected
    assert type(field) is type(expected)


@pytest.mark.parametrize(
    ("name", "given_value", "path", "part"),
    [
        ("lower", 1, "lower", "true or false, not a whole number"),
        ("lower", "true", "lower", "true or false, not text"),
        ("wait", 5, "wait", "duration with a unit"),
        ("wait", "fast", "wait", "unit of d, h, m"),
        ("waits", ["1s", 2], "waits[1]", "duration"),
        ("inner", {"size": 0}, "inner.size", "at least 1"),
        ("inner", {"size": 1, "wait": 3}, "inner.wait", "duration"),
        ("inner", {}, "inner.size", "required"),
        ("inner", 3, "inner", "mapping of fields, not a whole number"),
        ("many", [{"size": 1}, {"size": "2"}], "many[1].size", "whole number, not text"),
        ("kind", "frist", "kind", "one of 'first', 'second'"),
        ("level", "hgih", "level", "one of 'low', 'high'"),
        ("when", "a ?", "when", "does not compile"),
        ("retry", {"max_attempt": 2}, "retry.max_attempt", "unknown"),
        ("ratio", 1.5, "ratio", "at most 1"),
        ("ratio", float("nan"), "ratio", "at least 0"),
        ("ratio", True, "ratio", "a number, not true or false"),
        ("either", 1.5, "either", "a whole number or text"),
        ("pair", [1], "pair", "exactly 2 items"),
        ("pair", [1, 2], "pair[1]", "text, not a whole number"),
        ("raw", "text", "raw", "bytes, not text"),
        ("pet", {"type": "cow"}, "pet", "Cat fields or a mapping of Dog fields"),
        ("at", "yesterday", "at", "datetime"),
        ("pattern", "b", "pattern", "match"),
        ("pattern", "aaaa", "pattern", "at most 3 characters"),
        ("header", {"nam": "x"}, "header.nam", "unknown"),
        ("text", {"$secret": "A"}, "text", "text, not a mapping"),
        ("text", 5, "text", "text, not a whole number"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(name: str, given_value: object, path: str, part: str) -> None:
    (problem,) = problems(**{name: given_value})
    assert problem.path == f"nodes.n.config.{path}"
    assert part in problem.message


def test_all_problems_come_at_once() -> None:
    found = problems(lower="x", wait=1, inner={"size": 0, "wait": 1}, lowr=True)
    assert [problem.path.removeprefix("nodes.n.config.") for problem in found] == [
        "lower", "wait", "inner.size", "inner.wait", "lowr",
    ]  # fmt: skip
    assert "'lower'" in found[-1].remedy


def test_a_missing_field_is_named_with_what_it_takes() -> None:
    with pytest.raises(ConfigError) as caught:
        decode_config(Config, {}, hook=hook)
    assert "config.text: is required and missing; add text: text" in str(caught.value)


def test_a_secret_written_in_the_open_is_refused_and_not_repeated() -> None:
    (problem,) = problems(key="sk-very-secret")
    assert "very-secret" not in str(problem)
    assert "{$secret: OPENAI_API_KEY}" in problem.message


def test_secrets_are_resolved_into_a_copy() -> None:
    config = decoded(key={"$secret": "A"}, headers={"h": {"$secret": "B"}, "plain": "x"})
    resolved = with_secrets(config, lambda name: Secret(f"<{name}>", name=name))
    assert resolved.key.reveal() == "<A>"
    assert resolved.headers["h"].reveal() == "<B>"
    assert config.key == SecretRef("A")


def test_a_default_in_plain_form_is_compiled_too() -> None:
    config_type: Any = msgspec.defstruct("C", [("when", Expression, "value")])
    config: Any = decode_config(config_type, {}, hook=hook)
    assert isinstance(config.when, Expression)
    assert config.when.text == "value"


def test_a_type_without_configuration_takes_none() -> None:
    assert decode_config(None, {}, hook=hook) is None
    with pytest.raises(ConfigError, match="takes no configuration"):
        decode_config(None, {"a": 1}, hook=hook)


def test_a_struct_made_in_code_is_checked_like_one_from_a_file() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        decode_config(Config, Config(text="t", inner=Inner(0)), hook=hook)


def test_a_rule_across_fields_is_a_finding() -> None:
    class Range(msgspec.Struct):
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low ({self.low}) is above high ({self.high})")

    with pytest.raises(ConfigError, match=r"config: low \(2\) is above high \(1\)"):
        decode_config(Range, {"low": 2, "high": 1}, hook=hook)


@given(st.timedeltas(min_value=timedelta(0)))
def test_every_duration_survives_its_text(duration: timedelta) -> None:
    assert decoded(wait=format_duration(duration)).wait == duration


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(Config.__struct_fields__), PLAIN))
def test_whatever_is_given_is_read_or_refused_with_problems(fields: dict[str, object]) -> None:
    try:
        decode_config(Config, fields, hook=hook)
    except ConfigError as refused:
        found = refused.__dict__["problems"]
    else:
        return
    assert found


def test_the_schema_shows_every_field_as_a_file_writes_it() -> None:
    schema: Any = config_schema(Config)
    properties = schema["properties"]
    assert schema["required"] == ["text"]
    assert schema["additionalProperties"] is False
    assert list(properties) == list(Config.__struct_fields__)
    assert properties["wait"]["type"] == "string"
    assert properties["wait"]["default"] == "2s"
    assert properties["inner"]["anyOf"][0]["properties"]["size"] == {"type": "integer", "minimum": 1}
    assert properties["kind"] == {"enum": ["first", "second"], "default": "first"}
    assert properties["level"] == {"enum": ["low", "high"], "default": "low"}
    assert properties["when"]["anyOf"][0]["type"] == ["string", "boolean", "number"]
    assert properties["when"]["anyOf"][0]["description"] == "which rows"
    assert properties["key"]["anyOf"][0]["required"] == ["$secret"]
    assert properties["ratio"] == {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
    assert properties["pair"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert msgspec.json.encode(schema)


class Tree(msgspec.Struct):
    children: list[Tree] = []


def test_a_struct_inside_itself_has_a_finite_schema() -> None:
    schema: Any = config_schema(Tree)
    assert schema["properties"]["children"]["items"] == {"type": "object"}
