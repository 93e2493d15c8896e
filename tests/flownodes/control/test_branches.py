"""control.condition and control.switch: exactly one way out."""

from typing import Any

import pytest
from msgspec import UNSET

from flowcore.context import NodeContext
from flowcore.errors import ConfigError, ExpressionEvaluationError
from flowcore.node import definition_of
from flownodes.control.condition import Condition, ConditionIn
from flownodes.control.switch import Switch, SwitchIn
from flowruntime.factories import DefinitionFactory
from flowruntime.testing.contexts import StandaloneNodeContext


def made(node: object, **config: Any) -> Any:
    definition = definition_of(node)
    assert definition is not None
    return DefinitionFactory(definition).create(config)


@pytest.fixture
def ctx() -> NodeContext:
    return StandaloneNodeContext()


def test_a_condition_sends_the_value_one_way(ctx: NodeContext) -> None:
    condition = made(Condition, when="value.amount > 100")
    high, low = (
        condition.execute(ConditionIn({"amount": 200}), ctx),
        condition.execute(ConditionIn({"amount": 1}), ctx),
    )
    assert (high.true, high.false) == ({"amount": 200}, UNSET)
    assert (low.true, low.false) == (UNSET, {"amount": 1})


@pytest.mark.parametrize("value", [{"amount": "much"}, {}, None])
def test_a_condition_without_an_answer_fails_the_row(value: object, ctx: NodeContext) -> None:
    with pytest.raises(ExpressionEvaluationError):
        made(Condition, when="value.amount > 100").execute(ConditionIn(value), ctx)
    with pytest.raises(ExpressionEvaluationError):
        made(Condition, when="value").execute(ConditionIn(value), ctx)


def test_the_first_match_wins(ctx: NodeContext) -> None:
    switch = made(Switch, cases={"high": "value > 8", "any": "value > 0"})
    taken = [
        {name for name in out.__struct_fields__ if getattr(out, name) is not UNSET}
        for out in (switch.execute(SwitchIn(value), ctx) for value in (9, 5, 0))
    ]
    assert taken == [{"high"}, {"any"}, {"otherwise"}]
    assert switch.execute(SwitchIn(9), ctx).high == 9


def test_cases_after_the_match_are_not_tried(ctx: NodeContext) -> None:
    switch = made(Switch, cases={"text": 'value == "a"', "field": "value.x > 1"})
    assert switch.execute(SwitchIn("a"), ctx).text == "a"
    with pytest.raises(ExpressionEvaluationError):
        switch.execute(SwitchIn("b"), ctx)


def test_the_ports_of_a_switch_are_its_cases() -> None:
    definition = definition_of(Switch)
    assert definition is not None
    shaped = definition.for_config({"cases": {"high": "value > 8", "any": "value > 0"}})
    assert [port.name for port in shaped.outputs] == ["high", "any", "otherwise"]
    assert shaped.exclusive_outputs
    assert shaped.structured_output


@pytest.mark.parametrize(
    "config", [{}, {"cases": None}, {"cases": [1]}, {"cases": {1: "x", "if": "y", "a-b": "z"}}]
)
def test_a_configuration_that_makes_no_sense_has_ports_and_is_refused_later(config: dict[str, Any]) -> None:
    definition = definition_of(Switch)
    assert definition is not None
    assert [port.name for port in definition.for_config(config).outputs] == ["otherwise"]
    with pytest.raises(ConfigError):
        made(Switch, **config)


@pytest.mark.parametrize("name", ["class", "otherwise", "a-b", "1a", "", "_x", "None"])
def test_a_case_that_cannot_name_a_port_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        made(Switch, cases={name: "value > 8"})


def test_two_switches_do_not_share_their_ports(ctx: NodeContext) -> None:
    one, two = made(Switch, cases={"a": "true"}), made(Switch, cases={"b": "true"})
    assert one.execute(SwitchIn(1), ctx).a == 1
    assert not hasattr(two.execute(SwitchIn(1), ctx), "a")
