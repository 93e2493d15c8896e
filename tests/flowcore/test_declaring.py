"""Declaring nodes and operators: what cannot be one is refused at once, with what to write instead."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from flowcore import Node, node, operator
from flowcore.errors import DefinitionError, ValidationFailedError


def clean(text: str) -> str:
    return text.strip()


class Config(msgspec.Struct, frozen=True):
    """Nothing to say."""


class In(msgspec.Struct):
    """One port."""

    value: int


def execute(self: Any, inputs: In, ctx: Any) -> int:
    del self, ctx
    return inputs.value


def _class(method: Any = execute, **options: Any) -> Any:
    """What `class Made(Node[Config, In, int], **options): execute = method` makes."""
    body = {} if method is None else {"execute": method}
    return types.new_class("Made", (Node[Config, In, int],), options, lambda space: space.update(body))


def test_the_decorator_without_a_type_name_says_so_instead_of_swallowing_the_function() -> None:
    with pytest.raises(DefinitionError, match=r"write @node\('text.clean'\) above 'clean'"):
        node(cast("Any", clean))


@pytest.mark.parametrize(
    ("thing", "remedy"),
    [
        (functools.partial(clean), "write a def that calls it"),
        ("abc".strip, "write a def that calls it"),
        (len, "write a def that calls it"),
        (5, "write a def that calls it"),
        (Config, r"derive the class: class Config\(Node\["),
    ],
)
@pytest.mark.parametrize("declare", [node("text.x"), operator("text.x", settles="explicit")])
def test_only_a_function_is_decorated(declare: Callable[[Any], Any], thing: Any, remedy: str) -> None:
    with pytest.raises(DefinitionError, match=remedy):
        declare(thing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "operator"}, "kind='operator' is not one of batch, collect, expand, filter, map, merge"),
        ({"offload": "thred"}, "offload='thred' is not one of process, thread"),
        ({"type": 5}, "a node type is a dotted name such as 'text.clean', not 5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        cast("Any", node)(**({"type": "text.clean"} | options))(clean)


def test_an_operator_must_say_how_it_settles() -> None:
    with pytest.raises(DefinitionError, match="settles='maybe' is not one of on_entry, explicit"):
        operator("text.x", settles=cast("Any", "maybe"))(clean)


def test_a_class_with_an_unknown_option_names_it_and_the_one_that_was_meant() -> None:
    with pytest.raises(ValidationFailedError, match="unknown policy field 'timout'; did you mean 'timeout'"):
        _class(type="text.late", timout=timedelta(seconds=1))


def test_a_class_without_execute_is_refused() -> None:
    with pytest.raises(DefinitionError, match="has no execute method"):
        _class(None, type="text.idle")


def test_a_class_is_no_collector() -> None:
    with pytest.raises(DefinitionError, match="kind='collect' is not one of expand, filter, map"):
        _class(type="text.all", kind="collect")


def test_a_class_bounds_its_children() -> None:
    class Many(Node[Config, In, int], type="text.many", kind="expand", max_children=3):
        def execute(self, inputs: In, ctx: Any) -> Any:
            yield inputs.value

    assert Many.__flow_node__.policies.max_children == 3


def test_a_default_that_answers_comparison_with_a_list_is_a_default_like_any_other() -> None:
    class Vectorish:
        def __eq__(self, other: object) -> Any:
            raise ValueError("which of them?")

        __hash__ = None  # pyright: ignore[reportAssignmentType] - as arrays are

    default = Vectorish()

    @node("text.default")
    def with_default(text: str, other: Any = default) -> str:
        return f"{text}{other}"

    assert with_default.__flow_node__.inputs[1].default is default  # pyright: ignore[reportFunctionMemberAccess] - what the decorator left
