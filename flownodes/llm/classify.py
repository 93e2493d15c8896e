"""llm.classify: has a model choose among labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, cast

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.errors import ConfigError
from flowcore.findings import shown
from flowcore.llm.messages import Message, assistant, system, user
from flowcore.node import Node, Outputs
from flowcore.values import Json
from flownodes.llm.answer import told
from flownodes.llm.asking import asked
from flownodes.llm.config import Asks
from flownodes.llm.generate import PromptedConfig
from flownodes.llm.structured import MAX_REPAIRS, Form, described

_MAX_LABELS = 1_000
_Label = Annotated[str, Meta(min_length=1, max_length=200)]


class LabelledText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text whose label is known."""

    text: Annotated[str, Meta(min_length=1)]
    label: str


class ClassifyConfig(PromptedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of llm.classify."""

    labels: Annotated[
        tuple[_Label, ...] | dict[_Label, str],
        Meta(min_length=2, max_length=_MAX_LABELS, description="names, or names with what they mean"),
    ]
    several: Annotated[bool, Meta(description="a text may have more than one label, or none")] = False
    examples: Annotated[tuple[LabelledText, ...], Meta(max_length=200)] = ()
    repairs: Annotated[int, Meta(ge=0, le=MAX_REPAIRS)] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.names()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"labels: {shown(twice)} is there twice; remove one", field="labels")
        for example in self.examples:
            if example.label not in names:
                known = ", ".join(map(shown, names[:20]))
                raise ConfigError(
                    f"examples: {shown(example.label)} is none of the labels {known}", field="examples"
                )

    def names(self) -> list[str]:
        """The labels, in order."""
        return list(self.labels)

    def schema(self) -> dict[str, Any]:
        """The form of an answer."""
        one: dict[str, Any] = {"type": "string", "enum": self.names()}
        name, form = ("labels", {"type": "array", "items": one}) if self.several else ("label", one)
        return {
            "type": "object",
            "properties": {name: form},
            "required": [name],
            "additionalProperties": False,
        }

    def task(self) -> str:
        """What the model is told."""
        how = "every label that applies, or none" if self.several else "the one label that fits best"
        lines = [f"Choose {how} for the text. Labels:"]
        if isinstance(self.labels, Mapping):
            lines += [f"- {name}: {meaning}" for name, meaning in self.labels.items()]
        else:
            lines += [f"- {name}" for name in self.labels]
        return "\n".join([*lines, described(self.schema())])


class ClassifyIn(Struct, frozen=True):
    """Input ports."""

    text: Any
    """The text; or, with a `prompt` of your own, any value."""


class ClassifyOut(Outputs):
    """Output ports."""

    out: dict[str, Any] | UnsetType = UNSET
    """`{label}`, or `{labels}` with `several`."""
    label: Any | UnsetType = UNSET
    """The label; the list of labels with `several`."""
    record: dict[str, Any] | UnsetType = UNSET
    """The source's row with `label` (or `labels`) added; of a row that is no object: `{value, label}`."""
    answer: dict[str, Any] | UnsetType = UNSET


class Classify(Asks, Node[ClassifyConfig, ClassifyIn, ClassifyOut], type="llm.classify"):
    """Asks a model which of the labels a text has; an answer with another one is asked for again.

    Emits when      the label is one of `labels`.
    Drops           nothing.
    Fails when      no answer has a known label after `repairs` further calls, or as llm.generate.
    Cost            one call a row, and one for each repair.
    Holds           the rows that wait for the model: at most the policy `concurrency`.
    """

    @cached_property
    def _form(self) -> Form:
        return Form("classification", self.config.schema(), self.config.repairs)

    @cached_property
    def _beginning(self) -> tuple[Message, ...]:
        """The task and the examples, the same for every row, so that a provider can keep them."""
        name = "labels" if self.config.several else "label"
        turns: list[Message] = [system(self.config.task())]
        for example in self.config.examples:
            label = [example.label] if self.config.several else example.label
            turns += [user(example.text), assistant(Json.of({name: label}).raw.decode())]
        return tuple(turns)

    async def execute(self, inputs: ClassifyIn, ctx: NodeContext) -> ClassifyOut:
        config = self.config
        messages = (*self._beginning, *asked(config.prompt, config.system, inputs.text))
        found = await self._form.ask(messages, config, self.target, ctx, prompt=config.named(ctx.node_id))
        result = cast("dict[str, Any]", found.value)
        record: Any = ctx.record.parse() if isinstance(ctx.record, Json) else ctx.record
        row = cast("dict[str, Any]", record) if type(record) is dict else {"value": record}
        return ClassifyOut(
            out=result,
            label=next(iter(result.values())),
            record={**row, **result},
            answer=told(found.answer, calls=found.calls, usage=found.usage),
        )
