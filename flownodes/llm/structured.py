"""Answers of a given form: asked for, checked, and asked for again with what is wrong.

Owns: `Form`, and the turns it takes until an answer fits.
Does not own: schemas and finding JSON in text (flowcore.llm.schemas), checking (flowcore.answers).

Always holds: what is given back fits the schema; an answer that never fits is `OutputInvalidError` with every
problem of the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from flowcore.answers import schema_faults, value_faults
from flowcore.context import NodeContext
from flowcore.errors import ConfigError
from flowcore.llm.answers import Generation, Usage
from flowcore.llm.calls import Prompt, Target
from flowcore.llm.errors import OutputInvalidError
from flowcore.llm.messages import Message, OutputSchema, assistant, user
from flowcore.llm.schemas import inlined, json_in
from flownodes.llm.answer import accepted
from flownodes.llm.config import GenerateConfig

MAX_REPAIRS: Final = 10
_SHOWN_FAULTS: Final = 20
_SHOWN_CHARACTERS: Final = 2_000


class Fitted(NamedTuple):
    """A value that fits, and what it took."""

    value: Any
    answer: Generation
    """The last one."""
    calls: int
    usage: Usage | None
    """Of all calls; None when a provider told nothing."""


class Form:
    """The form answers must have.

    Args:
        name: of the schema, for the provider.
        schema: JSON Schema; local references are replaced.
        repairs: how often the model is told what is wrong and asked again.

    Raises:
        ConfigError: the schema has what would not be checked.
    """

    def __init__(self, name: str, schema: Mapping[str, Any], repairs: int) -> None:
        self._schema: Final = inlined(schema)
        wrong = schema_faults(self._schema)
        if wrong:
            raise ConfigError(f"schema: {'; '.join(wrong)}", field="schema")
        self._output: Final = OutputSchema(name=name, schema=self._schema)
        self._repairs: Final = repairs

    async def ask(
        self,
        messages: tuple[Message, ...],
        config: GenerateConfig,
        target: Target,
        ctx: NodeContext,
        *,
        prompt: Prompt | None = None,
    ) -> Fitted:
        """Ask until an answer fits.

        Raises:
            OutputInvalidError: none did.
            ProviderError: a call failed.
        """
        usages: list[Usage | None] = []
        while True:
            request = config.request(messages, output=self._output)
            answer = accepted(await ctx.models.generate(request, target, prompt=prompt), config.provider)
            usages.append(answer.usage)
            value, wrong = self._read(answer)
            if not wrong:
                return Fitted(value, answer, len(usages), _sum(usages))
            if len(usages) > self._repairs:
                raise _never_fits(answer, wrong, len(usages), config)
            messages = (*messages, assistant(answer.text), user(_repair(wrong)))

    def _read(self, answer: Generation) -> tuple[Any, list[str]]:
        """The value, and what is wrong with it."""
        if answer.finish == "length":
            return None, [f"the answer was cut off after {len(answer.text):,} characters: be shorter"]
        try:
            value = json_in(answer.text)
        except ValueError as fault:
            return None, [str(fault)]
        return value, [f"{path} {message}" for path, message in value_faults(value, self._schema)]


def _never_fits(
    answer: Generation, wrong: list[str], calls: int, config: GenerateConfig
) -> OutputInvalidError:
    return OutputInvalidError(
        f"the answer does not fit the schema after {calls} calls: {'; '.join(wrong[:_SHOWN_FAULTS])}; "
        f"it starts with {answer.text[:200]!r}. Make the schema simpler or the prompt clearer, raise repairs",
        provider=config.provider,
        model=answer.model or config.model,
        problems=wrong,
        attempts=calls,
        text=answer.text[:_SHOWN_CHARACTERS],
    )


def _repair(wrong: Sequence[str]) -> str:
    listed = "\n".join(f"- {each}" for each in wrong[:_SHOWN_FAULTS])
    more = len(wrong) - _SHOWN_FAULTS
    rest = f"\n- and {more} more" if more > 0 else ""
    return f"That does not fit:\n{listed}{rest}\nAnswer again, in full, with the JSON alone."


def _sum(usages: Sequence[Usage | None]) -> Usage | None:
    total = Usage()
    for usage in usages:
        if usage is None:
            return None
        total = total.plus(usage)
    return total


def described(schema: Mapping[str, Any]) -> str:
    """The schema in words for models whose provider cannot be held to it."""
    return f"Answer with JSON alone that fits this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"
