"""llm.stream: gives a model's answer while it is being written."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.llm.answers import Assembly
from flowcore.llm.messages import Message
from flowcore.node import Node, Outputs
from flowcore.values import Stream
from flownodes.llm.answer import accepted
from flownodes.llm.asking import asked
from flownodes.llm.config import Asks
from flownodes.llm.generate import PromptedConfig


class StreamConfig(PromptedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of llm.stream."""

    tokens: Annotated[bool, Meta(description="publish each piece as an event of channel token")] = True
    ahead: Annotated[int, Meta(ge=1, le=10_000, description="pieces that may be ready and not taken")] = 64


class StreamIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class StreamOut(Outputs):
    """Output ports."""

    out: Stream[str] | UnsetType = UNSET
    """The pieces of the text."""


class StreamNode(Asks, Node[StreamConfig, StreamIn, StreamOut], type="llm.stream"):
    """Asks a model and gives its answer piece by piece, as a Stream and as events.

    The call is made when somebody begins to read. Who cancels the stream ends the call; `stream.collect`
    makes one text of it.

    Emits when      the row comes: the stream is there at once.
    Drops           nothing.
    Fails when      a field of the prompt is missing; what goes wrong later fails the stream, and its row.
    Cost            one call a row.
    Holds           `ahead` pieces for each row whose stream is read.
    """

    async def execute(self, inputs: StreamIn, ctx: NodeContext) -> StreamOut:
        messages = asked(self.config.prompt, self.config.system, inputs.value)
        return StreamOut(out=ctx.stream(self._pieces(messages, ctx), capacity=self.config.ahead))

    async def _pieces(self, messages: tuple[Message, ...], ctx: NodeContext) -> AsyncGenerator[str, None]:
        config = self.config
        whole = Assembly()
        deltas = ctx.models.stream(config.request(messages), self.target, prompt=config.named(ctx.node_id))
        async with aclosing(deltas):
            async for delta in deltas:
                whole.add(delta)
                if delta.text:
                    if config.tokens:
                        ctx.emit("token", delta.text)
                    yield delta.text
        accepted(whole.whole(), config.provider)
