"""embedding.embed: turns texts into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from msgspec import Meta

from flowcore.context import BatchContext
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.policy import CallPolicy
from flowcore.llm.requests import EmbedRequest, Timeouts
from flowcore.node import node
from flowcore.policies import Batch
from flowcore.values import Secret
from flowcore.vectors import Vector
from flownodes.fields import wrong_kind


@node(
    "embedding.embed",
    batch=Batch(max_items=64, linger=timedelta(milliseconds=5)),
    concurrency=2,
    deterministic=True,
)
async def embed(  # noqa: PLR0913 - the configuration of a model
    texts: Sequence[str],
    ctx: BatchContext,
    *,
    provider: Annotated[str, Meta(min_length=1, description="local, openai, ollama, ...")] = "local",
    model: Annotated[str, Meta(min_length=1, description="as the provider names it")] = "all-MiniLM-L6-v2",
    dimensions: Annotated[int | None, Meta(ge=1, description="left out: the model's own")] = None,
    base_url: Annotated[str | None, Meta(pattern=r"^https?://")] = None,
    api_key: Annotated[Secret | None, Meta(description="left out: the provider's usual variable")] = None,
    headers: Mapping[str, str | Secret] = {},
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    options: Mapping[str, Any] = {},
    calls: CallPolicy = CallPolicy(),  # noqa: B008 - frozen
) -> Sequence[Vector | Exception]:
    """A vector for each text: float32 numbers, little-endian, as bytes.

    `local` computes all-MiniLM-L6-v2 (384 numbers) on this machine, in threads of its own. A batch is sent in
    as few requests as the provider takes; a request it refuses is halved until the text that cannot be
    embedded stands alone.

    Emits when      the batch is embedded; the policy `batch: {max_items, linger}` sets its size.
    Drops           nothing.
    Fails when      a value is no text, a text is refused (it alone), or the provider fails for good.
    Cost            one call a batch; `local`: all cores, some 5 ms a short text and core.
    Holds           `batch.max_items` texts for each call in flight.
    """
    endpoint = Endpoint(
        provider=provider,
        base_url=base_url,
        api_key=api_key,
        headers=headers,
        timeouts=timeouts,
        options=options,
    )
    results: list[Vector | Exception] = [_fault(text) or b"" for text in texts]
    places = [place for place, result in enumerate(results) if isinstance(result, bytes)]
    if places:
        request = EmbedRequest(
            model=model, texts=tuple(texts[place] for place in places), dimensions=dimensions
        )
        vectors = await ctx.models.embed(request, Target(endpoints=(endpoint,), policy=calls))
        for place, vector in zip(places, vectors, strict=True):
            results[place] = vector
    return results


def _fault(text: object) -> Exception | None:
    if isinstance(text, str):
        return None
    return wrong_kind(text, "text", "embedding.embed", "connect a field that holds text")
