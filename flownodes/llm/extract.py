"""llm.extract: has a model fill in a form."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.llm.messages import system
from flowcore.node import Node, Outputs
from flownodes.llm.answer import told
from flownodes.llm.asking import asked
from flownodes.llm.config import Asks
from flownodes.llm.generate import PromptedConfig
from flownodes.llm.structured import MAX_REPAIRS, Form, described

_TASK = (
    "Take the data the schema asks for out of the text. Where the text does not say it, use null if allowed."
)


class ExtractConfig(PromptedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of llm.extract."""

    schema: Annotated[
        dict[str, Any],
        Meta(description="JSON Schema of the result; in code: flowcore.llm.schemas.schema_of(Type)"),
    ]
    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="of the schema, for the provider")
    ] = "result"
    repairs: Annotated[
        int, Meta(ge=0, le=MAX_REPAIRS, description="how often the model is told what does not fit")
    ] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.form()

    def form(self) -> Form:
        """What answers must fit."""
        return Form(self.name, self.schema, self.repairs)


class ExtractIn(Struct, frozen=True):
    """Input ports."""

    text: Any
    """The text; or, with a `prompt` of your own, any value."""


class ExtractOut(Outputs):
    """Output ports."""

    out: Any | UnsetType = UNSET
    """What fits the schema."""
    answer: dict[str, Any] | UnsetType = UNSET


class Extract(Asks, Node[ExtractConfig, ExtractIn, ExtractOut], type="llm.extract"):
    """Asks a model for data of a given form, checks it, and has it repaired where it does not fit.

    Emits when      an answer fits the schema.
    Drops           nothing.
    Fails when      none fits after `repairs` further calls (OutputInvalidError lists what is wrong), or as
                    llm.generate.
    Cost            one call a row, and one for each repair.
    Holds           the rows that wait for the model: at most the policy `concurrency`.
    """

    @cached_property
    def _form(self) -> Form:
        return self.config.form()

    async def execute(self, inputs: ExtractIn, ctx: NodeContext) -> ExtractOut:
        config = self.config
        task = system(f"{_TASK}\n{described(config.schema)}")
        messages = (task, *asked(config.prompt, config.system, inputs.text))
        found = await self._form.ask(messages, config, self.target, ctx, prompt=config.named(ctx.node_id))
        return ExtractOut(out=found.value, answer=told(found.answer, calls=found.calls, usage=found.usage))
