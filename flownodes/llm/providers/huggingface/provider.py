"""The provider `huggingface`.

Owns: how vectors are asked for. Does not own: chat, which is OpenAI's wire format at the router's address.

Source: the documentation of Hugging Face, "Inference Providers", tasks "Chat completion" and "Feature
extraction".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Meta

from flowcore.health import Health, HealthContext
from flowcore.llm.answers import Delta, Embeddings, Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import ProviderContext
from flowcore.llm.rate_headers import rate_limits
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.llm.statuses import bad_answer
from flowcore.vectors import vector_of
from flownodes.llm.providers.openai.embeddings import in_order
from flownodes.llm.providers.openai.provider import OpenAIProvider
from flownodes.llm.providers.openai.traits import Traits
from flownodes.llm.wire.connection import Connection, unsupported, wall
from flownodes.llm.wire.opening import address_of, key_of, options_of
from flownodes.llm.wire.tokens import count

ADDRESS: Final = "https://router.huggingface.co/v1"
EMBED_PATH: Final = "/hf-inference/models/{model}/pipeline/feature-extraction"
"""Beside the `/v1` of chat."""
KEY: Final = "HF_TOKEN"

_CHAT: Final = Traits(base_url=ADDRESS, key=KEY, embeds=False)
_VECTORS: Final = msgspec.json.Decoder(list[list[float]])


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only this provider knows."""

    embed_url: Annotated[str, Meta(pattern=r"^https?://")] | None = None
    """Where vectors are asked for; `{model}` stands for the model. None: the router's own path; of an
    endpoint of one's own: its address."""
    normalize: bool | None = None
    """Whether vectors have length 1; None: as the model's settings say."""


class HuggingFaceProvider:
    """Hugging Face's inference router, or an endpoint of one's own there.

    Args:
        endpoint: key, options `embed_url`, `normalize`.
        ctx: to find the key in.

    Raises:
        ConfigError: no key, or an unknown option.
    """

    def __init__(self, endpoint: Endpoint, ctx: ProviderContext) -> None:
        self.name: Final = endpoint.provider
        self.max_embed_texts: Final = 32
        self._options: Final = options_of(endpoint, Options)
        given = {name.lower() for name in endpoint.headers}
        key = key_of(endpoint, ctx, KEY, required="authorization" not in given)
        plain = msgspec.structs.replace(endpoint, options={}, api_key=key)
        self._chat: Final = OpenAIProvider(
            plain, ctx, msgspec.structs.replace(_CHAT, key_required=key is not None)
        )
        address = address_of(endpoint, ADDRESS)
        self._embed_url: Final = self._options.embed_url or address.removesuffix("/v1") + EMBED_PATH
        headers = {} if key is None else {"authorization": f"Bearer {key.reveal()}"}
        self._connection: Final = Connection(endpoint, address, headers, () if key is None else (key,))

    def __repr__(self) -> str:
        return f"<provider {self.name} at {self._connection.address}>"

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        """See `Provider.count_tokens`; by the tables of another maker, so an estimate."""
        return count(request)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether the router lists its models."""
        return await self._chat.health(ctx)

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        """See `Provider.generate`."""
        return await self._chat.generate(request, ctx)

    def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        """See `Provider.stream`."""
        return self._chat.stream(request, ctx)

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        """See `Provider.embed`; a text longer than the model takes is refused, not cut."""
        asked = self._connection.asked(request.model)
        if request.dimensions is not None:
            raise unsupported(asked, "dimensions", "remove it; the model has its own")
        payload: dict[str, Any] = {"inputs": list(request.texts), "truncate": False}
        if self._options.normalize is not None:
            payload["normalize"] = self._options.normalize
        url = self._embed_url.replace("{model}", quote(request.model, safe="/"))
        answer = await self._connection.call(ctx, asked, url, payload | dict(request.extra))
        found = self._connection.decoded(ctx, asked, answer, _VECTORS)
        try:
            vectors = [vector_of(numbers) for numbers in found]
            ordered = in_order(vectors, list(range(len(vectors))), len(request.texts))
        except ValueError as fault:
            raise bad_answer(asked, str(fault), answer.body, status=answer.status) from fault
        return Embeddings(vectors=ordered, model=request.model, limits=rate_limits(answer.headers, wall(ctx)))
