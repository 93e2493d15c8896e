"""llm.generate: asks a model for a text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.llm.calls import Prompt
from flowcore.node import Node, Outputs
from flownodes.llm.answer import accepted, told
from flownodes.llm.asking import asked
from flownodes.llm.config import Asks, GenerateConfig
from flownodes.llm.prompt import PromptText, check_prompt, prompt_of


class PromptedConfig(GenerateConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of a node that makes its prompt from what comes in."""

    prompt: Annotated[
        PromptText | None, Meta(description="what is asked; left out: the value itself, as text")
    ] = None
    system: Annotated[PromptText | None, Meta(description="what the model should keep to")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt, "prompt")
        check_prompt(self.system, "system")

    def named(self, node_id: str) -> Prompt:
        """The template's name and version, for events and spans."""
        return prompt_of(node_id, f"{self.system or ''}\0{self.prompt or ''}", self.prompt_version)


class GenerateNodeConfig(PromptedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of llm.generate."""

    truncated: Annotated[
        Literal["keep", "fail"], Meta(description="an answer cut off at max_tokens: give it, or fail the row")
    ] = "keep"


class GenerateIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class GenerateOut(Outputs):
    """Output ports."""

    out: str | UnsetType = UNSET
    """The text."""
    answer: dict[str, Any] | UnsetType = UNSET
    """The whole answer: text, finish, model, id, tool_calls, usage, calls."""


class Generate(Asks, Node[GenerateNodeConfig, GenerateIn, GenerateOut], type="llm.generate"):
    """Asks a model, once for each row, and gives the text it answers.

    Emits when      the answer is whole.
    Drops           nothing.
    Fails when      the provider refuses, fails for good or stays silent (each with a class of its own), the
                    answer is refused by a filter, or a field of the prompt is missing.
    Cost            one call a row, more where calls are retried; the prices of the provider.
    Holds           the rows that wait for the model: at most the policy `concurrency`.
    """

    async def execute(self, inputs: GenerateIn, ctx: NodeContext) -> GenerateOut:
        config = self.config
        request = config.request(asked(config.prompt, config.system, inputs.value))
        answer = await ctx.models.generate(request, self.target, prompt=config.named(ctx.node_id))
        answer = accepted(answer, config.provider, fail_truncated=config.truncated == "fail")
        return GenerateOut(out=answer.text, answer=told(answer))
