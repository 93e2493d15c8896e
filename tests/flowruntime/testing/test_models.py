"""Nodes that call models, tested by hand: the provider is called straight, and what was asked is there."""

from __future__ import annotations

import pytest

from flowcore.errors import ContractError
from flowcore.llm.calls import Target
from flowcore.llm.requests import EmbedRequest
from flowruntime.testing import StandaloneNodeContext
from tests.behaviour.harness import virtual
from tests.flowruntime.models.counting import Counting, ask, at


@virtual
async def test_a_context_of_a_test_calls_the_provider_it_was_given() -> None:
    provider = Counting(then=0.0, max_texts=2)
    ctx = StandaloneNodeContext(providers={"counting": provider})
    target = Target(endpoints=at().endpoints, models=("other",))
    assert (await ctx.models.generate(ask("a"), target)).text == "re: a"
    pieces = [piece.text async for piece in ctx.models.stream(ask("b"), target)]
    assert "".join(pieces) == "re: b"
    assert len(await ctx.models.embed(EmbedRequest(model="m", texts=("a", "b", "c")), target)) == 3
    assert ctx.models.count_tokens(ask(), target) == 10
    assert provider.models == ["other", "other", "m", "m"]
    assert [call.request.model for call in ctx.model_calls] == ["m"] * 3


@virtual
async def test_a_provider_the_test_did_not_give_is_named() -> None:
    ctx = StandaloneNodeContext(providers={"counting": Counting()})
    with pytest.raises(ContractError, match="provider 'other' and the test gave 'counting'"):
        await ctx.models.generate(ask(), at("other"))
