"""`{$secret: NAME}` in a configuration is looked up when a node, source or sink is to run, and only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec import Struct

from flowcore import Node, NodeContext, Rows, Sink, Source, Workflow, node
from flowcore.connector import Credit, Position
from flowcore.errors import SecretNotFoundError
from flowcore.policies import Batch
from flowcore.values import Secret, SecretRef
from flowruntime import FlowRuntime
from flowruntime.testing import recorded

KEY = "s3cr3t-value"
"""What must appear nowhere."""


@node("secrets.plain")
def plain(value: str, *, key: Secret) -> int:
    """A fused function."""
    return len(value + key.reveal())


@node("secrets.waits")
async def waits(value: str, *, keys: dict[str, Secret]) -> int:
    """A coroutine, the secret inside a mapping."""
    return len(value + keys["a"].reveal())


@node("secrets.batched", batch=Batch(max_items=4))
async def batched(values: Sequence[str], *, key: Secret) -> Sequence[int]:
    """A batch."""
    return [len(value + key.reveal()) for value in values]


class Part(Struct, frozen=True):
    key: Secret


class MadeConfig(Struct, frozen=True):
    parts: tuple[Part, ...]


class MadeIn(Struct, frozen=True):
    value: str


class Made(Node[MadeConfig, MadeIn, int], type="secrets.made"):
    """A class, the secret deep inside its configuration."""

    async def initialize(self, ctx: NodeContext) -> None:
        assert self.config.parts[0].key.reveal() == KEY

    async def execute(self, inputs: MadeIn, ctx: NodeContext) -> int:
        return len(inputs.value + self.config.parts[0].key.reveal())


THINGS: list[Any] = [plain, waits, batched, Made]
CONFIGS: dict[str, Any] = {
    "secrets.plain": {"key": SecretRef("KEY")},
    "secrets.waits": {"keys": {"a": SecretRef("KEY")}},
    "secrets.batched": {"key": SecretRef("KEY")},
    "secrets.made": {"parts": [{"key": SecretRef("KEY")}]},
}


def of(kind: str) -> Workflow:
    wf = Workflow("secrets")
    wf.add(kind, id="n", config=CONFIGS[kind])
    return wf


@pytest.mark.parametrize("kind", sorted(CONFIGS))
async def test_a_node_of_any_form_is_given_its_secret(kind: str) -> None:
    wf = of(kind)
    async with FlowRuntime(nodes=THINGS, secrets={"KEY": KEY}) as rt:
        with recorded(rt.events) as seen:
            port = rt.validate(wf, mode="request").open_ports["n"][0]
            result = await rt.execute(wf, {"n": {port: "x"}})
            outcomes = [out async for out in rt.stream(wf, ["x"])]
        result.raise_for_state()
        assert result.outputs["n"]["out"] == 1 + len(KEY)
        assert [out.value for out in outcomes] == [1 + len(KEY)]
        assert KEY not in repr(result)
        assert KEY not in repr(seen)
        assert KEY not in repr(wf)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
async def test_a_secret_that_is_not_set_is_an_error_that_names_the_node(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY", raising=False)
    wf = of(kind)
    async with FlowRuntime(nodes=THINGS) as rt:
        port = rt.validate(wf, mode="request").open_ports["n"][0]
        with pytest.raises(SecretNotFoundError, match="node 'n': secret 'KEY' is not set"):
            await rt.execute(wf, {"n": {port: "x"}})


async def test_what_stands_in_for_a_node_needs_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY", raising=False)
    async with FlowRuntime(nodes=THINGS) as rt:
        result = await rt.execute(of("secrets.waits"), {"n": {"value": "x"}}, replace={"n": 7})
    assert result.outputs["n"]["out"] == 7


class KeyConfig(Struct, frozen=True, kw_only=True):
    key: Secret


WRITTEN: list[str] = []


class Rows3:
    """Three rows that show that the key was there."""

    def __init__(self, key: Secret) -> None:
        self._left = [f"{n} {len(key.reveal())}" for n in range(3)]

    async def read(self, credit: Credit) -> Rows[str] | None:
        if not self._left:
            return None
        values, self._left = self._left[: credit.rows], self._left[credit.rows :]
        return Rows(values, next=None)

    async def commit(self, position: Position) -> None:
        """Keeps none."""

    async def close(self) -> None:
        """Holds nothing."""


class KeyedSource(Source[KeyConfig, str], type="secrets.source"):
    """A source with a key.

    Fails when      never.
    """

    async def open(self, partition: str, resume: Position | None, ctx: Any) -> Rows3:
        return Rows3(self.config.key)


class KeyedSink(Sink[KeyConfig, str], type="secrets.sink"):
    """A sink with a key.

    Fails when      never.
    """

    async def write(self, batch: Rows[str]) -> Mapping[int, Exception]:
        WRITTEN.extend(f"{value} {len(self.config.key.reveal())}" for value in batch.values)
        return {}


async def test_sources_and_sinks_are_given_theirs() -> None:
    WRITTEN.clear()
    wf = Workflow("keyed")
    wf.chain(
        wf.add(KeyedSource, id="in", config={"key": SecretRef("KEY")}),
        wf.add(KeyedSink, id="out", config={"key": SecretRef("KEY")}),
    )
    async with FlowRuntime(secrets={"KEY": KEY}, state_dir=None) as rt:
        result = await (await rt.start(wf)).wait()
    result.raise_for_state()
    assert [f"{n} {len(KEY)} {len(KEY)}" for n in range(3)] == WRITTEN
