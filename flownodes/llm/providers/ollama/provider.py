"""The provider `ollama`.

Owns: the exchanges: paths, which parts of a request this API lacks, the address from OLLAMA_HOST, `pull`.
Does not own: the wire format of its chat (chat), errors of the exchange (flownodes.llm.wire.connection).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from flowcore.errors import SecretNotFoundError
from flowcore.health import Health, HealthContext
from flowcore.llm.answers import Assembly, Delta, Embeddings, Generation, Usage
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.messages import ImagePart
from flowcore.llm.provider import ProviderContext
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.llm.statuses import Asked, bad_answer
from flowcore.vectors import vector_of
from flownodes.llm.providers.ollama.chat import Answer, Pieces, calls_before, chat_payload
from flownodes.llm.providers.openai.embeddings import in_order
from flownodes.llm.wire.connection import Connection, Incoming, unsupported
from flownodes.llm.wire.opening import address_of, key_of, options_of
from flownodes.llm.wire.tokens import count

ADDRESS: Final = "http://127.0.0.1:11434"
PORT: Final = 11_434
VARIABLE: Final = "OLLAMA_HOST"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only this provider knows."""

    keep_alive: str | int | None = None
    """How long the model stays in memory after a call: `10m`, or seconds; -1: for ever."""
    num_ctx: Annotated[int, Meta(ge=1)] | None = None
    """Tokens of prompt and answer together."""
    think: bool | str | None = None
    """Whether, or how much (`low`, `high`), a model that can is to think first."""


class _Vectors(msgspec.Struct, frozen=True):
    embeddings: list[list[float]]
    model: str | None = None
    prompt_eval_count: int | None = None


class PullProgress(msgspec.Struct, frozen=True):
    """How far the loading of a model is."""

    status: str
    digest: str | None = None
    """Of the layer that is loaded now."""
    total: int | None = None
    """Bytes of that layer."""
    completed: int | None = None
    """Bytes of it that are there."""


_ANSWER: Final = msgspec.json.Decoder(Answer)
_VECTORS: Final = msgspec.json.Decoder(_Vectors)
_PROGRESS: Final = msgspec.json.Decoder(PullProgress)
_LOADED: Final = "success"


class OllamaProvider:
    """One Ollama.

    Args:
        endpoint: address (else that of OLLAMA_HOST, else 127.0.0.1:11434), options `keep_alive`, `num_ctx`,
            `think`; a key where it stands behind something that asks for one.
        ctx: to find OLLAMA_HOST in.

    Raises:
        ConfigError: an unknown option, or no address.
    """

    keeps_time: Final = True
    """See `flowcore.llm.provider.Provider`."""

    def __init__(self, endpoint: Endpoint, ctx: ProviderContext) -> None:
        self.name: Final = endpoint.provider
        self.max_embed_texts: Final = 256
        self._options: Final = options_of(endpoint, Options)
        key = key_of(endpoint, ctx, "OLLAMA_API_KEY", required=False)
        headers = {} if key is None else {"authorization": f"Bearer {key.reveal()}"}
        address = address_of(endpoint, _usual(ctx), example=ADDRESS)
        self._connection: Final = Connection(endpoint, address, headers, () if key is None else (key,))

    def __repr__(self) -> str:
        return f"<provider {self.name} at {self._connection.address}>"

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        """See `Provider.count_tokens`; by the tables of another maker, so an estimate."""
        return count(request)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether it lists the models it has."""
        return await self._connection.health(ctx, "/api/tags")

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        """See `Provider.generate`."""
        asked = self._connection.asked(request.model)
        payload = self._payload(request, asked, stream=False)
        answer = await self._connection.call(ctx, asked, "/api/chat", payload)
        found = self._connection.decoded(ctx, asked, answer, _ANSWER)
        if not found.done:
            raise bad_answer(asked, "it is not done", answer.body, status=answer.status)
        whole = Assembly()
        delta = Pieces(calls_before(request)).add(found)
        if delta is not None:
            whole.add(delta)
        return whole.whole()

    async def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        """See `Provider.stream`."""
        asked = self._connection.asked(request.model)
        payload = self._payload(request, asked, stream=True)
        async with (
            self._connection.stream(ctx, asked, "/api/chat", payload) as incoming,
            aclosing(_read(incoming, Pieces(calls_before(request)))) as deltas,
        ):
            async for delta in deltas:
                incoming.received += len(delta.text)
                yield delta

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        """See `Provider.embed`; a text longer than the model takes is refused, not cut."""
        asked = self._connection.asked(request.model)
        payload: dict[str, Any] = {"model": request.model, "input": list(request.texts), "truncate": False}
        if request.dimensions is not None:
            payload["dimensions"] = request.dimensions
        if self._options.keep_alive is not None:
            payload["keep_alive"] = self._options.keep_alive
        if self._options.num_ctx is not None:
            payload["options"] = {"num_ctx": self._options.num_ctx}
        answer = await self._connection.call(ctx, asked, "/api/embed", payload | dict(request.extra))
        found = self._connection.decoded(ctx, asked, answer, _VECTORS)
        try:
            vectors = [vector_of(numbers) for numbers in found.embeddings]
            ordered = in_order(vectors, list(range(len(vectors))), len(request.texts))
        except ValueError as fault:
            raise bad_answer(asked, str(fault), answer.body, status=answer.status) from fault
        counted = found.prompt_eval_count
        usage = None if counted is None else Usage(input_tokens=counted)
        return Embeddings(vectors=ordered, usage=usage, model=found.model or "")

    async def pull(self, model: str, ctx: ProviderContext) -> AsyncGenerator[PullProgress, None]:
        """Load a model onto the machine Ollama runs on; what was loaded before an end stays there.

        Takes as long as it goes on: `timeouts.between_tokens` bounds its silences, `timeouts.total` nothing.

        Raises:
            ModelNotFoundError, ProviderError: as named; BrokenStreamError: it ended before it was loaded.
        """
        asked = self._connection.asked(model)
        payload = {"model": model, "stream": True}
        status = ""
        async with (
            self._connection.stream(ctx, asked, "/api/pull", payload, is_long=True) as incoming,
            aclosing(incoming.lines()) as lines,
        ):
            async for line in lines:
                progress = incoming.decoded(line, _PROGRESS)
                status = progress.status
                yield progress
            if status != _LOADED:
                raise incoming.broken("the model is not loaded")

    def _payload(self, request: GenerateRequest, asked: Asked, *, stream: bool) -> dict[str, Any]:
        if request.tools and request.tool_choice not in (None, "auto", "none"):
            raise unsupported(
                asked, f"tool_choice {request.tool_choice!r}", "use auto, or say in the prompt what to call"
            )
        if request.parallel_tools is False and request.tools:
            raise unsupported(asked, "parallel_tools: false", "remove it")
        parts = [part for message in request.messages for part in message.content if message.content]
        if any(isinstance(part, ImagePart) and part.url is not None for part in parts):
            raise unsupported(asked, "an image by its address", "give the bytes of the image")
        own = {} if self._options.num_ctx is None else {"num_ctx": self._options.num_ctx}
        named = {"keep_alive": self._options.keep_alive, "think": self._options.think}
        beside = {name: value for name, value in named.items() if value is not None}
        try:
            return chat_payload(request, own, beside, stream=stream)
        except ValueError as fault:
            raise unsupported(
                asked, "a tool call whose arguments are no JSON", "leave it out of the conversation"
            ) from fault


def _usual(ctx: ProviderContext) -> str:
    """The address in OLLAMA_HOST, which may lack scheme and port, or be that it listens on (0.0.0.0)."""
    said = os.environ.get(VARIABLE, "").strip()
    if not said:  # asked for first, it would be masked as a secret in each message that names the address
        with suppress(SecretNotFoundError):
            said = ctx.secret(VARIABLE).reveal().strip()
    if not said:
        return ADDRESS
    has_scheme = "://" in said
    parts = urlsplit(said if has_scheme else f"http://{said}")
    host = parts.hostname or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - what it says, turned into where it is reached
    try:
        port = parts.port
    except ValueError:
        return said  # refused as no address, with a message
    if port is None and not has_scheme:
        port = PORT
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}") + parts.path.rstrip("/")


async def _read(incoming: Incoming, pieces: Pieces) -> AsyncGenerator[Delta, None]:
    async with aclosing(incoming.lines()) as lines:
        async for line in lines:
            delta = pieces.add(incoming.decoded(line, _ANSWER))
            if delta is not None:
                yield delta
            if pieces.is_over:
                break
    if not pieces.is_over:
        raise incoming.broken()
