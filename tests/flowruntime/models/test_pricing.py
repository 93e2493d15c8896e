"""Prices: of the package, of a table that wins over it, and none where nobody knows."""

from __future__ import annotations

import pytest

from flowcore.llm.answers import Usage
from flowruntime.models.pricing import Price, Prices
from tests.behaviour.harness import virtual

USAGE = Usage(input_tokens=1_000_000, output_tokens=1_000_000)


@virtual
async def test_the_package_knows_what_common_models_cost_and_a_table_wins_over_it() -> None:
    said: list[str] = []
    prices = Prices({"openai/gpt-4o": Price(input=1.0, output=1.0)}, said.append)
    await prices.ready(["openai"])
    await prices.ready(["openai"])
    assert prices.cost("openai", "gpt-4o", USAGE) == pytest.approx(2.0)
    known = prices.cost("openai", "gpt-4o-mini", USAGE)
    assert known is not None
    assert 0.1 < known < 10
    half = Usage(input_tokens=500_000, output_tokens=500_000, cached_tokens=0)
    assert prices.cost("openai", "gpt-4o-mini", half) == pytest.approx(known / 2)
    cached = Usage(input_tokens=1_000_000, cached_tokens=1_000_000)
    plain = prices.cost("openai", "gpt-4o-mini", Usage(input_tokens=1_000_000))
    cheaper = prices.cost("openai", "gpt-4o-mini", cached)
    assert plain is not None
    assert cheaper is not None
    assert cheaper < plain
    assert said == []


@virtual
async def test_a_model_nobody_knows_has_no_cost_and_that_is_said_once() -> None:
    said: list[str] = []
    prices = Prices({}, said.append)
    await prices.ready(["openai"])
    assert [prices.cost("nobody", "no-such-model", USAGE) for _ in range(3)] == [None] * 3
    assert len(said) == 1
    assert "the price of model 'no-such-model' of 'nobody' is not known" in said[0]


def test_before_the_package_is_loaded_only_the_table_counts() -> None:
    prices = Prices({"m": Price(input=3.0)}, lambda _: None)
    assert prices.cost("x", "m", USAGE) == pytest.approx(3.0)


async def test_what_runs_on_the_users_machine_costs_nothing_unless_a_table_says_so() -> None:
    """And the package of prices is not even loaded for it."""
    reported: list[str] = []
    prices = Prices({"ollama/llama3.2": Price(input=1.0)}, reported.append)
    await prices.ready(["local", "scripted"])
    usage = Usage(input_tokens=1_000_000)
    assert prices.cost("local", "any", usage) == 0.0
    assert prices.cost("ollama", "llama3.2", usage) == 1.0
    assert prices.cost("nobody", "any", usage) is None
    assert "install flowrx[llm]" in reported[0]
