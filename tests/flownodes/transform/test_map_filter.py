"""transform.map and transform.filter: nodes that are one expression."""

import pytest

from flowcore.errors import ConfigError, ExpressionEvaluationError
from flowcore.expression import Expression, Template
from flowcore.node import definition_of
from flownodes.transform.filter import filter as filter_node
from flownodes.transform.map import map as map_node
from flowruntime.factories import DefinitionFactory


def doubled(value: int) -> dict[str, int]:
    return {"twice": value * 2}


def above_two(value: int) -> bool:
    return value > 2


def itself(value: object) -> object:
    return value


def test_map_builds_the_value_its_fields_describe() -> None:
    assert map_node(3, fields=Template("twice", doubled)) == {"twice": 6}


def test_filter_passes_what_its_condition_is_true_of() -> None:
    above = Expression("value > 2", above_two)
    assert [number for number in range(5) if filter_node(number, where=above)] == [3, 4]


def test_a_condition_that_is_neither_true_nor_false_fails_the_row() -> None:
    with pytest.raises(ExpressionEvaluationError, match="must be true or false"):
        filter_node(3, where=Expression("value", itself))


@pytest.mark.parametrize(("node", "field"), [(map_node, "fields"), (filter_node, "where")])
def test_both_are_compiled_from_their_one_field(node: object, field: str) -> None:
    definition = definition_of(node)
    assert definition is not None
    assert definition.computes == field
    with pytest.raises(ConfigError, match="nosuch"):
        DefinitionFactory(definition).create({field: "nosuch + 1"})
    with pytest.raises(ConfigError, match="required"):
        DefinitionFactory(definition).create({})
