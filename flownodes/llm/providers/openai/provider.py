"""The provider `openai`, and all that speak its wire format.

Owns: the exchanges: which path, which headers, in which order pieces become an answer.
Does not own: the wire format (chat, completions, responses, embeddings), services (presets), errors of the
exchange (flownodes.llm.wire.connection).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from flowcore.context import HttpResponse
from flowcore.health import Health, HealthContext
from flowcore.llm.answers import Delta, Embeddings, Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import ProviderContext
from flowcore.llm.rate_headers import rate_limits
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.llm.statuses import Asked, ErrorWords, bad_answer, error_in, provider_error
from flownodes.llm.providers.openai import completions, responses
from flownodes.llm.providers.openai.chat import chat_payload
from flownodes.llm.providers.openai.embeddings import EmbeddingsWire, embed_payload, vectors_of
from flownodes.llm.providers.openai.traits import (
    AzureOptions,
    OpenAIOptions,
    Options,
    ResponsesOptions,
    Traits,
)
from flownodes.llm.wire.connection import Connection, Incoming, unsupported, wall
from flownodes.llm.wire.opening import address_of, key_of, options_of
from flownodes.llm.wire.tokens import count

T = TypeVar("T")

_DONE: Final = b"[DONE]"
_VERSIONLESS: Final = "/openai/v1"
"""The end of an address of Azure's whose paths are OpenAI's own."""
_COMPLETION: Final = msgspec.json.Decoder(completions.Completion)
_CHUNK: Final = msgspec.json.Decoder(completions.Chunk)
_RESPONSE: Final = msgspec.json.Decoder(responses.Response)
_EVENT: Final = msgspec.json.Decoder(responses.StreamEvent)
_EMBEDDINGS: Final = msgspec.json.Decoder(EmbeddingsWire)
_FAILED: Final = ErrorWords(message="the answer failed", words=("server_error",))


class OpenAIProvider:
    """One endpoint of a service that speaks OpenAI's wire format.

    Args:
        endpoint: address, key, options: `organization`, `project`, `api` (openai); `api_version`,
            `deployment` (azure); `api` where there is a responses API.
        ctx: to find the key in.
        traits: of the service.

    Raises:
        ConfigError: no key or address, or an unknown option.
    """

    keeps_time: Final = True
    """See `flowcore.llm.provider.Provider`."""

    def __init__(self, endpoint: Endpoint, ctx: ProviderContext, traits: Traits) -> None:
        self.name: Final = endpoint.provider
        self.max_embed_texts: Final = traits.max_embed_texts
        self._traits: Final = traits
        self._options: Final = options_of(endpoint, _options(endpoint.provider, traits))
        given = {name.lower() for name in endpoint.headers}
        required = traits.key_required and traits.key_header not in given
        key = key_of(endpoint, ctx, traits.key, required=required)
        headers: dict[str, str] = {}
        if key is not None:
            scheme = "Bearer " if traits.key_header == "authorization" else ""
            headers[traits.key_header] = scheme + key.reveal()
        if isinstance(self._options, OpenAIOptions):
            named = {
                "openai-organization": self._options.organization,
                "openai-project": self._options.project,
            }
            headers |= {name: value for name, value in named.items() if value is not None}
        usual = traits.base_url
        if traits.address_variable is not None:
            usual = os.environ.get(traits.address_variable) or usual
        address = address_of(endpoint, usual, example=traits.example)
        self._has_deployments: Final = traits.deployments and not address.endswith(_VERSIONLESS)
        secrets = () if key is None else (key,)
        self._connection: Final = Connection(endpoint, address, headers, secrets)

    def __repr__(self) -> str:
        return f"<provider {self.name} at {self._connection.address}>"

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        """See `Provider.count_tokens`."""
        return count(request)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether it lists its models."""
        if self._has_deployments:
            return await self._connection.health(ctx, "/openai/models", query=self._query())
        return await self._connection.health(ctx, "/models")

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        """See `Provider.generate`."""
        asked = self._connection.asked(request.model)
        if self._has_responses:
            payload = _responses_payload(request, asked, stream=False)
            answer = await self._connection.call(ctx, asked, "/responses", payload)
            response = self._connection.decoded(ctx, asked, answer, _RESPONSE)
            if response.status == "failed" or response.error:
                said = error_in({"error": response.error}) if response.error else _FAILED
                raise provider_error(asked, answer.status, said or _FAILED, answer.headers, wall(ctx))
            found = _made(asked, answer, lambda: responses.generation_of(response))
        else:
            payload = chat_payload(request, self._traits, stream=False)
            path = self._path("/chat/completions", request.model)
            answer = await self._connection.call(ctx, asked, path, payload, query=self._query())
            completion = self._connection.decoded(ctx, asked, answer, _COMPLETION)
            failure = _failure(completion.error, completion.choices)
            if failure is not None:
                raise provider_error(asked, answer.status, failure, answer.headers, wall(ctx))
            found = _made(asked, answer, lambda: completions.generation_of(completion))
        return msgspec.structs.replace(found, limits=rate_limits(answer.headers, wall(ctx)))

    async def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        """See `Provider.stream`."""
        asked = self._connection.asked(request.model)
        if self._has_responses:
            path, payload = "/responses", _responses_payload(request, asked, stream=True)
            read = _read_response
        else:
            path, payload = (
                self._path("/chat/completions", request.model),
                chat_payload(request, self._traits, stream=True),
            )
            read = _read_chat
        async with (
            self._connection.stream(ctx, asked, path, payload, query=self._query()) as incoming,
            aclosing(read(incoming)) as deltas,
        ):
            async for delta in deltas:
                incoming.received += len(delta.text)
                yield delta

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        """See `Provider.embed`."""
        asked = self._connection.asked(request.model)
        if not self._traits.embeds:
            raise unsupported(asked, "embedding", "ask another provider for vectors")
        path, payload = self._path("/embeddings", request.model), embed_payload(request, self._traits)
        answer = await self._connection.call(ctx, asked, path, payload, query=self._query())
        found = self._connection.decoded(ctx, asked, answer, _EMBEDDINGS)
        return Embeddings(
            vectors=_made(asked, answer, lambda: vectors_of(found, len(request.texts))),
            usage=None if found.usage is None else found.usage.usage(),
            model=found.model or "",
            limits=rate_limits(answer.headers, wall(ctx)),
        )

    @property
    def _has_responses(self) -> bool:
        return isinstance(self._options, ResponsesOptions) and self._options.api == "responses"

    def _path(self, path: str, model: str) -> str:
        if not (self._has_deployments and isinstance(self._options, AzureOptions)):
            return path
        deployment = quote(self._options.deployment or model, safe="")
        return f"/openai/deployments/{deployment}{path}"

    def _query(self) -> dict[str, str]:
        if not (self._has_deployments and isinstance(self._options, AzureOptions)):
            return {}
        return {"api-version": self._options.api_version}


def _options(provider: str, traits: Traits) -> type[Options]:
    if traits.deployments:
        return AzureOptions
    if provider == "openai":
        return OpenAIOptions
    return ResponsesOptions if traits.responses else Options


def _responses_payload(request: GenerateRequest, asked: Asked, *, stream: bool) -> dict[str, Any]:
    for name, given in (("stop", bool(request.stop)), ("seed", request.seed is not None)):
        if given:
            raise unsupported(asked, f"{name} with api: responses", f"remove {name}, or use api: chat")
    return responses.responses_payload(request, stream=stream)


def _made(asked: Asked, answer: HttpResponse, make: Callable[[], T]) -> T:
    try:
        return make()
    except ValueError as fault:
        raise bad_answer(asked, str(fault), answer.body, status=answer.status) from fault


class _Ending(Protocol):
    @property
    def finish_reason(self) -> str | None: ...


def _failure(error: Any, choices: Sequence[_Ending]) -> ErrorWords | None:
    """What an answer says that failed though its status is 200; None: it did not."""
    said = error_in({"error": error}) if error else None
    if said is None and choices and choices[0].finish_reason == completions.FAILED:
        return _FAILED
    return said


async def _read_chat(incoming: Incoming) -> AsyncGenerator[Delta, None]:
    pieces = completions.Pieces()
    is_first = True
    async with aclosing(incoming.events()) as events:
        async for event in events:
            if event.data == _DONE:
                break
            chunk = incoming.decoded(event.data, _CHUNK)
            failure = _failure(chunk.error, () if chunk.first is None else (chunk.first,))
            if failure is not None:
                raise incoming.failed(failure)
            delta = pieces.add(chunk)
            if delta is not None:
                yield msgspec.structs.replace(delta, limits=incoming.limits) if is_first else delta
                is_first = False
    if pieces.reason is None:
        raise incoming.broken()
    try:
        last = pieces.last()
    except ValueError as fault:
        raise incoming.broken(str(fault)) from fault
    yield msgspec.structs.replace(last, limits=incoming.limits) if is_first else last


async def _read_response(incoming: Incoming) -> AsyncGenerator[Delta, None]:
    pieces = responses.Pieces()
    is_first = True
    async with aclosing(incoming.events()) as events:
        async for event in events:
            if event.data == _DONE:
                break
            said = incoming.decoded(event.data, _EVENT)
            if said.type == "error":
                raise incoming.failed(
                    ErrorWords(message=said.message or "", words=(said.code.lower(),) if said.code else ())
                )
            if said.type == "response.failed" or (
                said.response is not None and said.response.status == "failed"
            ):
                error = None if said.response is None else said.response.error
                raise incoming.failed((error_in({"error": error}) if error else None) or _FAILED)
            delta = pieces.add(said)
            if delta is not None:
                yield msgspec.structs.replace(delta, limits=incoming.limits) if is_first else delta
                is_first = False
            if pieces.end is not None:
                break
    if pieces.end is None:
        raise incoming.broken()
    try:
        whole = responses.generation_of(pieces.end)
    except ValueError as fault:
        raise bad_answer(incoming.asked, str(fault), b"") from fault
    yield pieces.last(whole)
