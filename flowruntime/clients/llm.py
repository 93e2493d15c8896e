"""`LlmClient`: answers of a model without a workflow, under the same limits, retries and caches as nodes.

Owns: the methods a program calls. Does not own: how a call is carried out (the runtime's gateway), where it
runs (hosting).

Always holds: a batch keeps its order and its length, an item that failed is a `Failure` in its place; nothing
caps its size: as many calls are in flight as the model's limit allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Self

import msgspec

from flowcore.errors import ConfigError
from flowcore.llm.answers import Generation, Usage
from flowcore.llm.messages import Message, system, user
from flowcore.llm.requests import GenerateRequest
from flowruntime.clients.hosting import Hosting
from flowruntime.clients.results import ClientStatistics, Completion, Failure, failure_of

if TYPE_CHECKING:
    from flowruntime.clients.config import LlmConfig
    from flowruntime.runtime import FlowRuntime

MAX_PARALLEL: Final = 512
"""Calls of one batch at work at once, where nobody says."""


class LlmClient:
    """Asks one model.

        client = LlmClient(LlmConfig.openai(key, model="gpt-4o-mini"))
        client.complete("Say hello")

    Methods without `await` block and work in the runtime of this process; the others may be used on any
    loop. Safe from any thread.

    Args:
        config: who is asked.
        runtime: an open FlowRuntime, for asynchronous programs that have one; None: the one of this process.
    """

    def __init__(self, config: LlmConfig, *, runtime: FlowRuntime | None = None) -> None:
        self._config: Final = config
        self._target: Final = config.target()
        self._hosting: Final = Hosting(runtime)
        self._statistics = ClientStatistics()

    def complete(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> str:
        """The model's answer, as text; blocks.

        Raises:
            ConfigError: the prompt is empty.
            ProviderError, BudgetExceededError, CircuitOpenError: what remains after retries and fallbacks.
        """
        return self.complete_full(prompt, max_tokens=max_tokens, temperature=temperature).text

    async def complete_async(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> str:
        """As `complete`."""
        full = await self.complete_full_async(prompt, max_tokens=max_tokens, temperature=temperature)
        return full.text

    def complete_full(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> Completion:
        """The answer with its usage; blocks."""
        request = self._request([_asked(prompt)], max_tokens, temperature)
        return self._hosting.wait(lambda runtime: self._ask(runtime, request))

    async def complete_full_async(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> Completion:
        """As `complete_full`."""
        request = self._request([_asked(prompt)], max_tokens, temperature)
        return await self._hosting.do(lambda runtime: self._ask(runtime, request))

    async def chat(
        self,
        messages: Iterable[Message | tuple[str, str]],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Completion:
        """The next turn of a conversation.

        Args:
            messages: `Message`s, or pairs of role and text.
            max_tokens: of the answer.
            temperature: 0 to 2.

        Raises:
            ConfigError: there is no message, or a role is none.
        """
        request = self._request([_turn(each) for each in messages], max_tokens, temperature)
        return await self._hosting.do(lambda runtime: self._ask(runtime, request))

    async def complete_batch(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        max_concurrency: int | None = None,
    ) -> list[str | Failure]:
        """An answer or a `Failure` for each prompt, in order; an empty prompt is a `Failure`.

        Args:
            prompts: any number.
            max_tokens: of each answer.
            temperature: 0 to 2.
            max_concurrency: calls of this batch at work at once; None: 512. The model's own limits hold too.
        """
        most = MAX_PARALLEL if max_concurrency is None else max_concurrency
        if most < 1:
            raise ConfigError(f"max_concurrency={max_concurrency} must be at least 1", value=max_concurrency)
        return await self._hosting.do(
            lambda runtime: self._batch(runtime, prompts, max_tokens, temperature, most)
        )

    async def complete_stream(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> AsyncGenerator[str, None]:
        """The answer piece by piece; closing the generator ends the call."""
        request = self._request([_asked(prompt)], max_tokens, temperature)
        async with aclosing(self._hosting.each(lambda runtime: self._pieces(runtime, request))) as pieces:
            async for piece in pieces:
                yield piece

    async def warmup(self) -> None:
        """Open the provider and a connection, with a call of one token.

        Raises:
            As `complete`.
        """
        request = self._request([user("hi")], 1, None)
        await self._hosting.do(lambda runtime: self._ask(runtime, request))

    def get_stats(self) -> ClientStatistics:
        """What was done so far; a copy."""
        return msgspec.structs.replace(self._statistics)

    def reset_stats(self) -> None:
        """Begin counting anew; calls in flight stay counted as such."""
        self._statistics = ClientStatistics(in_flight=self._statistics.in_flight)

    # --- on the runtime's loop -----------------------------------------------------------------------------

    async def _ask(self, runtime: FlowRuntime, request: GenerateRequest) -> Completion:
        counted = _Counted(self)
        with counted:
            answer = await runtime.models.generate(request, self._target)
            counted.told(answer.usage)
        return _completion(answer, counted.duration_s)

    async def _batch(
        self,
        runtime: FlowRuntime,
        prompts: Sequence[str],
        max_tokens: int | None,
        temperature: float | None,
        most: int,
    ) -> list[str | Failure]:
        results: list[str | Failure | None] = [None] * len(prompts)
        waiting = iter(enumerate(prompts))

        async def work() -> None:
            for index, prompt in waiting:
                try:
                    request = self._request([_asked(prompt)], max_tokens, temperature)
                    results[index] = (await self._ask(runtime, request)).text
                except Exception as error:  # noqa: BLE001 - each becomes an item; cancellation is not one
                    results[index] = failure_of(error, index, self._config.provider, self._config.model)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(most, len(prompts))):
                group.create_task(work())
        return [result for result in results if result is not None]

    async def _pieces(self, runtime: FlowRuntime, request: GenerateRequest) -> AsyncGenerator[str, None]:
        with _Counted(self) as counted:
            async with aclosing(runtime.models.stream(request, self._target)) as deltas:
                async for delta in deltas:
                    if delta.usage is not None:
                        counted.usage = delta.usage
                    if delta.text:
                        yield delta.text
            counted.told(counted.usage)

    def _request(
        self, messages: Sequence[Message], max_tokens: int | None, temperature: float | None
    ) -> GenerateRequest:
        config = self._config
        if not messages:
            raise ConfigError("a conversation needs at least one message")
        first = () if config.system is None else (system(config.system),)
        return GenerateRequest(
            model=config.model,
            messages=(*first, *messages),
            max_tokens=config.max_tokens if max_tokens is None else max_tokens,
            temperature=config.temperature if temperature is None else temperature,
        )


class _Counted:
    """One call of a client, in its figures."""

    def __init__(self, client: LlmClient) -> None:
        self._client = client
        self.usage: Usage | None = None
        self.duration_s = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = asyncio.get_running_loop().time()
        figures = self._client._statistics  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own
        figures.calls += 1
        figures.in_flight += 1
        return self

    def told(self, usage: Usage | None) -> None:
        """What the provider counted."""
        figures = self._client._statistics  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own
        if usage is None:
            figures.untold += 1
        else:
            figures.input_tokens += usage.input_tokens
            figures.output_tokens += usage.output_tokens

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.duration_s = asyncio.get_running_loop().time() - self._began
        figures = self._client._statistics  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own
        figures.in_flight -= 1
        figures.succeeded += kind is None
        figures.failed += kind is not None
        figures.total_duration_s += self.duration_s
        figures.longest_s = max(figures.longest_s, self.duration_s)


def _completion(answer: Generation, duration_s: float) -> Completion:
    return Completion(
        text=answer.text,
        finish=answer.finish,
        model=answer.model,
        usage=answer.usage,
        duration_s=duration_s,
    )


def _asked(prompt: object) -> Message:
    if not isinstance(prompt, str):
        raise ConfigError(f"a prompt is text, not {type(prompt).__name__}", value=repr(prompt)[:100])
    if not prompt.strip():
        raise ConfigError("the prompt is empty; there is nothing to ask", value=prompt[:100])
    return user(prompt)


def _turn(turn: Message | tuple[str, str]) -> Message:
    if isinstance(turn, Message):
        return turn
    role, text = turn
    if role not in ("system", "user", "assistant"):
        raise ConfigError(f"role {role!r} is none of system, user, assistant", value=role)
    return Message(role=role, content=text)
