"""llm.chat: continues a conversation."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.llm.messages import Message, system
from flowcore.node import Node, Outputs
from flownodes.llm.answer import accepted, told
from flownodes.llm.asking import conversation
from flownodes.llm.config import Asks, GenerateConfig
from flownodes.llm.prompt import PromptText, check_prompt, prompt_of, rendered


class ChatConfig(GenerateConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of llm.chat."""

    system: Annotated[
        PromptText | None,
        Meta(description="said before the conversation, unless it begins with a system message"),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.system, "system")


class ChatIn(Struct, frozen=True):
    """Input ports."""

    messages: Any
    """A list of `{role, content}`, one of them, or a text; roles: system, user, assistant, tool."""


class ChatOut(Outputs):
    """Output ports."""

    out: str | UnsetType = UNSET
    """What the model said."""
    messages: list[Any] | UnsetType = UNSET
    """The conversation with the answer at its end: the input of the next turn."""
    answer: dict[str, Any] | UnsetType = UNSET


class Chat(Asks, Node[ChatConfig, ChatIn, ChatOut], type="llm.chat"):
    """Gives a model a conversation, and what it answers.

    Emits when      the answer is whole.
    Drops           nothing.
    Fails when      the input is no conversation, or as llm.generate.
    Cost            one call a row.
    Holds           the rows that wait for the model: at most the policy `concurrency`.
    """

    async def execute(self, inputs: ChatIn, ctx: NodeContext) -> ChatOut:
        config = self.config
        turns = conversation(inputs.messages)
        if config.system is not None and turns[0].role != "system":
            turns = (system(rendered(config.system, inputs.messages, {}, "system")), *turns)
        prompt = None
        if config.system is not None:
            prompt = prompt_of(ctx.node_id, config.system, config.prompt_version)
        answer = await ctx.models.generate(config.request(turns), self.target, prompt=prompt)
        answer = accepted(answer, config.provider)
        return ChatOut(
            out=answer.text,
            messages=[plain_message(each) for each in (*turns, answer.message())],
            answer=told(answer),
        )


def plain_message(message: Message) -> dict[str, Any]:
    """A message as the plain data `conversation` reads."""
    plain: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    for name in ("content", "tool_calls"):
        if isinstance(plain.get(name), tuple):
            plain[name] = list(plain[name])
    return plain
