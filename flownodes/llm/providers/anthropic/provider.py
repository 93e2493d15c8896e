"""The provider `anthropic`.

Owns: the exchanges: path, headers, in which order pieces become an answer.
Does not own: the wire format (payload, answers), errors of the exchange (flownodes.llm.wire.connection).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from flowcore.health import Health, HealthContext
from flowcore.llm.answers import Delta, Embeddings, Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import ProviderContext
from flowcore.llm.rate_headers import rate_limits
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.llm.statuses import Asked, ErrorWords, bad_answer, error_in
from flownodes.llm.providers.anthropic.answers import Answer, Pieces, StreamEvent, generation_of
from flownodes.llm.providers.anthropic.payload import messages_payload
from flownodes.llm.wire.connection import Connection, Incoming, unsupported, wall
from flownodes.llm.wire.opening import address_of, key_of, options_of
from flownodes.llm.wire.tokens import count

ADDRESS: Final = "https://api.anthropic.com"
KEY: Final = "ANTHROPIC_API_KEY"

_ANSWER: Final = msgspec.json.Decoder(Answer)
_EVENT: Final = msgspec.json.Decoder(StreamEvent)
_PATH: Final = "/v1/messages"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only this provider knows."""

    version: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] = "2023-06-01"
    beta: tuple[str, ...] = ()
    """Names of features that are not in the version yet."""
    max_tokens: Annotated[int, Meta(ge=1)] = 4_096
    """Of an answer where the request sets none: this API must be told."""


class AnthropicProvider:
    """One endpoint of Anthropic's messages API.

    Args:
        endpoint: key, options `version`, `beta`, `max_tokens`.
        ctx: to find the key in.

    Raises:
        ConfigError: no key, or an unknown option.
    """

    keeps_time: Final = True
    """See `flowcore.llm.provider.Provider`."""

    def __init__(self, endpoint: Endpoint, ctx: ProviderContext) -> None:
        self.name: Final = endpoint.provider
        self.max_embed_texts: Final = 1
        self._options: Final = options_of(endpoint, Options)
        given = {name.lower() for name in endpoint.headers}
        key = key_of(endpoint, ctx, KEY, required=given.isdisjoint({"x-api-key", "authorization"}))
        headers = {"anthropic-version": self._options.version}
        if self._options.beta:
            headers["anthropic-beta"] = ",".join(self._options.beta)
        if key is not None:
            headers["x-api-key"] = key.reveal()
        secrets = () if key is None else (key,)
        address = address_of(endpoint, ADDRESS, example=ADDRESS)
        # Its own clients leave the version out of the address, most others have it there.
        self._connection: Final = Connection(endpoint, address.removesuffix("/v1"), headers, secrets)

    def __repr__(self) -> str:
        return f"<provider {self.name} at {self._connection.address}>"

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        """See `Provider.count_tokens`; by the tables of another maker, so an estimate."""
        return count(request)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether it lists its models."""
        return await self._connection.health(ctx, "/v1/models", query={"limit": "1"})

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        """See `Provider.generate`."""
        asked = self._connection.asked(request.model)
        payload = self._payload(request, asked, stream=False)
        answer = await self._connection.call(ctx, asked, _PATH, payload)
        found = self._connection.decoded(ctx, asked, answer, _ANSWER)
        try:
            made = generation_of(found, _form(request))
        except ValueError as fault:
            raise bad_answer(asked, str(fault), answer.body, status=answer.status) from fault
        return msgspec.structs.replace(made, limits=rate_limits(answer.headers, wall(ctx)))

    async def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        """See `Provider.stream`."""
        asked = self._connection.asked(request.model)
        payload = self._payload(request, asked, stream=True)
        async with (
            self._connection.stream(ctx, asked, _PATH, payload) as incoming,
            aclosing(_read(incoming, _form(request))) as deltas,
        ):
            async for delta in deltas:
                incoming.received += len(delta.text)
                yield delta

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        """Always refused."""
        asked = self._connection.asked(request.model)
        raise unsupported(asked, "embedding", "ask another provider for vectors")

    def _payload(self, request: GenerateRequest, asked: Asked, *, stream: bool) -> dict[str, Any]:
        if request.seed is not None:
            raise unsupported(asked, "seed", "remove it")
        try:
            return messages_payload(request, max_tokens=self._options.max_tokens, stream=stream)
        except ValueError as fault:
            raise unsupported(
                asked, "a tool call whose arguments are no JSON object", "leave it out of the conversation"
            ) from fault


def _form(request: GenerateRequest) -> str | None:
    return None if request.output is None else request.output.name


async def _read(incoming: Incoming, form: str | None) -> AsyncGenerator[Delta, None]:
    pieces = Pieces(form)
    is_first = True
    async with aclosing(incoming.events()) as events:
        async for event in events:
            said = incoming.decoded(event.data, _EVENT)
            if said.type == "error":
                raise incoming.failed(error_in({"error": said.error}) or ErrorWords(words=("api_error",)))
            delta = pieces.add(said)
            if delta is not None:
                yield msgspec.structs.replace(delta, limits=incoming.limits) if is_first else delta
                is_first = False
            if pieces.is_over:
                break
    if not pieces.is_over:
        raise incoming.broken()
    yield pieces.last()
