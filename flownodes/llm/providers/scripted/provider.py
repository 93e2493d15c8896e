"""The provider `scripted`: for tests, and for examples that must run without a key.

Owns: playing a script: answers, latencies, errors, streams, vectors.
Does not own: what a script may say (script).

Always holds: it is deterministic: the same calls in the same order get the same answers; time is the
runtime's, so a test on virtual time waits for nothing; it never says that it is anything else (`model` is
`scripted/...`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from typing import Any, Final

from msgspec import UNSET

from flowcore.errors import ConfigError
from flowcore.findings import shown
from flowcore.health import Health, HealthContext
from flowcore.llm import errors
from flowcore.llm.answers import Delta, Embeddings, Generation, ToolCallDelta, Usage
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import BrokenStreamError, ProviderError, RequestRefusedError
from flowcore.llm.messages import ToolCall
from flowcore.llm.provider import ProviderContext
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.values import Json
from flowcore.vectors import vector_of
from flownodes.llm.providers.scripted.script import Rule, Script, ScriptedToolCall, script_of

_FOREVER_S: Final = 1e9
_WORD: Final = re.compile(r"\w+")
_CHARACTERS_PER_TOKEN: Final = 4


class ScriptedProvider:
    """See the module; `options` of the endpoint are a script, or name its file in `script`.

    Args:
        endpoint: its `options` count; it takes no key and no address.
        ctx: not needed to open one.

    Raises:
        ConfigError: the script is invalid.
    """

    def __init__(self, endpoint: Endpoint, ctx: ProviderContext | None = None) -> None:
        del ctx
        if endpoint.base_url is not None:
            raise ConfigError("provider 'scripted' calls nobody; remove base_url", field="base_url")
        self.name: Final = "scripted"
        self._script: Final[Script] = script_of(endpoint.options)
        self.max_embed_texts: Final = self._script.max_embed_texts
        self._used: dict[int, int] = {}
        self.calls = 0
        """Made so far, failed ones included."""

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        rule = self._rule(request)
        await self._wait(rule, ctx)
        return self._answer(rule, request)

    async def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        rule = self._rule(request)
        await self._wait(rule, ctx)
        answer = self._answer(rule, request)
        for index, piece in enumerate(_pieces(answer.text, rule.pieces)):
            await self._between(rule, index, ctx)
            yield Delta(text=piece, model=answer.model, id=answer.id)
        await self._between(rule, rule.pieces, ctx)
        calls = tuple(
            ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
            for index, call in enumerate(answer.tool_calls)
        )
        yield Delta(
            tool_calls=calls, finish=answer.finish, usage=answer.usage, model=answer.model, id=answer.id
        )

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        self.calls += 1
        if len(request.texts) > self.max_embed_texts:
            raise RequestRefusedError(
                f"{len(request.texts)} texts in one call, at most {self.max_embed_texts}",
                provider=self.name,
                model=request.model,
                code="too_many_texts",
            )
        await ctx.sleep_s(self._script.latency.total_seconds())
        dimensions = request.dimensions or self._script.dimensions
        vectors = tuple(vector_of(_embedded(text, dimensions)) for text in request.texts)
        usage = Usage(input_tokens=sum(map(_tokens, request.texts)))
        return Embeddings(vectors=vectors, usage=usage, model=f"scripted/{request.model}")

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        if isinstance(request, EmbedRequest):
            return max(1, sum(map(_tokens, request.texts)))
        return max(1, sum(_tokens(message.text) for message in request.messages))

    async def health(self, ctx: HealthContext) -> Health:
        """Always ok: there is nothing outside."""
        del ctx
        return Health("ok", f"{len(self._script.answers)} scripted answers")

    # --- one answer ---

    def _rule(self, request: GenerateRequest) -> Rule:
        """The first rule that fits."""
        self.calls += 1
        asked = _asked(request)
        for index, rule in enumerate(self._script.answers):
            used = self._used.get(index, 0)
            if _fits(rule, request, asked) and (rule.times is None or used < rule.times):
                self._used[index] = used + 1
                return rule
        if self._script.otherwise == "fail":
            raise ProviderError(
                f"no scripted answer fits {shown(asked)}; add a rule, or say otherwise: echo",
                provider=self.name,
                model=request.model,
            )
        return Rule(text=asked)

    async def _wait(self, rule: Rule, ctx: ProviderContext) -> None:
        latency = self._script.latency if rule.latency is None else rule.latency
        await ctx.sleep_s(latency.total_seconds())

    async def _between(self, rule: Rule, index: int, ctx: ProviderContext) -> None:
        """What happens before piece number `index` of a stream."""
        if rule.stall_after is not None and index >= rule.stall_after:
            await ctx.sleep_s(_FOREVER_S)
        if rule.break_after is not None and index >= rule.break_after:
            raise BrokenStreamError(
                f"the scripted stream broke after {index} pieces", provider=self.name, reason="scripted"
            )
        if rule.delay > timedelta(0):
            await ctx.sleep_s(rule.delay.total_seconds())

    def _answer(self, rule: Rule, request: GenerateRequest) -> Generation:
        if rule.error is not None:
            raise _error(rule, request)
        text = _text(rule, _asked(request))
        if rule.json is not UNSET:
            text = Json.of(rule.json).raw.decode()
        calls = tuple(_tool_call(call, number) for number, call in enumerate(rule.tool_calls))
        usage = rule.usage or Usage(
            input_tokens=self.count_tokens(request),
            output_tokens=max(1, _tokens(text) + sum(_tokens(call.arguments) for call in calls)),
        )
        return Generation(
            text=text,
            tool_calls=calls,
            finish=rule.finish or ("tool_calls" if calls else "stop"),
            usage=usage,
            model=f"scripted/{request.model}",
            id=f"scripted-{self.calls}",
        )


def _text(rule: Rule, asked: str) -> str:
    if rule.text is None:
        return ""
    found = re.search(rule.matches, asked) if rule.expand and rule.matches is not None else None
    if found is None:
        return rule.text
    try:
        return found.expand(rule.text)
    except (re.error, IndexError) as fault:
        raise ConfigError(
            f"scripted text {shown(rule.text)} does not go with {shown(str(rule.matches))}: {fault}",
            field="text",
        ) from fault


def _error(rule: Rule, request: GenerateRequest) -> ProviderError:
    said = rule.error
    assert said is not None  # noqa: S101 - the caller looked
    kind: type[ProviderError] = getattr(errors, said.kind)
    facts: dict[str, Any] = {"provider": "scripted", "model": request.model, "status": said.status}
    if said.retry_after is not None:
        facts["retry_after_s"] = said.retry_after.total_seconds()
    return kind(f"scripted {said.kind}: {said.message}", **facts)


def _fits(rule: Rule, request: GenerateRequest, asked: str) -> bool:
    if rule.model is not None and rule.model != request.model:
        return False
    if rule.when is not None:
        return rule.when in asked
    return rule.matches is None or re.search(rule.matches, asked) is not None


def _asked(request: GenerateRequest) -> str:
    """The last message that is not the model's own."""
    return next((each.text for each in reversed(request.messages) if each.role in ("user", "tool")), "")


def _tool_call(call: ScriptedToolCall, number: int) -> ToolCall:
    arguments = call.arguments if isinstance(call.arguments, str) else Json.of(call.arguments).raw.decode()
    return ToolCall(id=f"call_{number}", name=call.name, arguments=arguments)


def _pieces(text: str, count: int) -> Iterator[str]:
    step = max(1, math.ceil(len(text) / count))
    return (text[start : start + step] for start in range(0, len(text), step))


def _tokens(text: str) -> int:
    return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)


def _embedded(text: str, dimensions: int) -> list[float]:
    """A unit vector from the text's words, so that texts with common words are alike."""
    numbers = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        digest = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        numbers[digest % dimensions] += 1.0 if digest >> 63 else -1.0
    length = math.hypot(*numbers)
    if length == 0.0:  # two words that cancel out
        numbers[0] = length = 1.0
    return [number / length for number in numbers]
