"""Embedding many texts: as few requests as the provider allows, and no good text lost for a bad one.

Owns: `embedded`, how texts are split (`chunks`) and how a refusal is pinned down (`_isolated`).
Does not own: one request (paid, carrying).

Always holds: one vector or error per text, in order; an error that concerns all texts is raised. A refused
request is halved: n texts of which k are refused take at most 2 k (1 + log2 n) + 1 requests; after
`_HOPELESS` texts refused alone and none embedded the refusal is taken to be about the request, and raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from flowcore.errors import ContractError
from flowcore.llm.answers import Embeddings
from flowcore.llm.errors import ModelNotFoundError, RequestRefusedError
from flowcore.llm.requests import EmbedRequest
from flowruntime.models.attempt import Attempt, Place, attempted
from flowruntime.models.paid import paid

if TYPE_CHECKING:
    from flowcore.llm.calls import Target
    from flowcore.vectors import Vector
    from flowruntime.models.gateway import Gateway
    from flowruntime.models.journal import CallName
    from flowruntime.models.origin import Origin
    from flowruntime.models.report import Report

MAX_TOKENS: Final = 250_000
"""Of one request; the common limit is 300,000, and ours are estimates (OpenAI API reference, embeddings)."""
AT_ONCE: Final = 8
"""Requests of one call under way; the model's own limits hold besides."""
_HOPELESS: Final = 8


async def embedded(
    gateway: Gateway, origin: Origin, request: EmbedRequest, target: Target, report: Report, number: str
) -> tuple[Vector | Exception, ...]:
    """A vector or an error per text."""
    call = _Embedding(gateway, origin, request, target, report, number)
    await call.recall()
    await call.fill()
    return call.answers()


def chunks(sizes: Sequence[int], most: int, most_tokens: int) -> list[range]:
    """Runs of texts that one request may have: at most `most` of them, and of that many tokens together.

    A text that is larger by itself goes alone: the provider decides about it.
    """
    found: list[range] = []
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and (index - start >= most or total + size > most_tokens):
            found.append(range(start, index))
            start, total = index, 0
        total += size
    if start < len(sizes):
        found.append(range(start, len(sizes)))
    return found


class _Embedding:
    """One call of `ctx.models.embed`."""

    def __init__(
        self,
        gateway: Gateway,
        origin: Origin,
        request: EmbedRequest,
        target: Target,
        report: Report,
        number: str,
    ) -> None:
        self._gateway = gateway
        self._request = request
        self._target = target
        self._report = report
        self._found: list[Vector | Exception | None] = [None] * len(request.texts)
        policy = target.policy
        naming = origin.naming() if policy.journal else None
        self._naming = naming
        self._names: list[str] = []
        self._entries: list[CallName] = []
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._refused = self._embedded = 0
        if policy.cache is not None or naming is not None:
            singles = [msgspec.structs.replace(request, texts=(text,)) for text in request.texts]
            self._names = [gateway.name_of(single, target) for single in singles]
        if naming is not None:
            self._entries = [naming.of(f"{number}.{index}", name) for index, name in enumerate(self._names)]

    async def recall(self) -> None:
        """Fill in what is kept of each text."""
        gateway, policy = self._gateway, self._target.policy
        journal = gateway.journal if self._entries else None
        for index, name in enumerate(self._names):
            answer = await gateway.recall(name, policy)
            if isinstance(answer, bytes):
                self._found[index] = answer
                self._report.cached = True
            elif journal is not None:
                answer = await journal.find(
                    self._entries[index],
                    name,
                    gateway.wall_s(),
                    anywhere=self._naming is not None and self._naming.anywhere,
                )
                if isinstance(answer, bytes):
                    self._found[index] = answer
                    self._report.journaled = True
                    self._note()

    async def fill(self) -> None:
        """Make the requests for what is left, some at once; an error that concerns all ends the others."""
        left = [index for index, found in enumerate(self._found) if found is None]
        if not left:
            return
        self._report.cached = self._report.journaled = False
        provider = self._gateway.providers.of(self._target.endpoints[0])
        sizes = [
            provider.count_tokens(msgspec.structs.replace(self._request, texts=(self._request.texts[index],)))
            for index in left
        ]
        limit = self._target.policy.limits.tokens_per_minute
        runs = chunks(sizes, provider.max_embed_texts, min(MAX_TOKENS, limit or MAX_TOKENS))
        tasks = [
            asyncio.get_running_loop().create_task(
                self._embed([left[at] for at in run]), name="flow embedding request"
            )
            for run in runs
        ]
        async with _all_or_none(tasks):
            await asyncio.gather(*tasks)

    async def _embed(self, indexes: list[int]) -> None:
        """The vectors of these texts; a refused request is halved."""
        try:
            async with self._gate:
                vectors = await self._vectors(indexes)
        except RequestRefusedError as refusal:
            if isinstance(refusal, ModelNotFoundError) or getattr(refusal, "code", None) == "unsupported":
                raise
            await self._isolated(indexes, refusal)
            return
        self._embedded += len(indexes)
        for index, vector in zip(indexes, vectors, strict=True):
            self._found[index] = vector
        await self._keep(indexes)

    async def _isolated(self, indexes: list[int], refusal: RequestRefusedError) -> None:
        if len(indexes) == 1:
            self._found[indexes[0]] = refusal
            self._refused += 1
            if self._refused >= _HOPELESS and not self._embedded:
                raise refusal
            return
        middle = len(indexes) // 2
        await self._embed(indexes[:middle])
        await self._embed(indexes[middle:])

    async def _vectors(self, indexes: list[int]) -> tuple[Vector, ...]:
        gateway, target = self._gateway, self._target
        texts = tuple(self._request.texts[index] for index in indexes)
        payment = await paid(
            gateway, msgspec.structs.replace(self._request, texts=texts), target, self._report
        )
        request = payment.request

        async def make(place: Place) -> Embeddings:
            asked = msgspec.structs.replace(request, model=place.model)
            assert isinstance(asked, EmbedRequest)  # noqa: S101 - as it was given
            answer = await place.provider.embed(asked, gateway.providers.context)
            if len(answer.vectors) != len(texts):
                raise ContractError(
                    f"provider {place.endpoint.provider!r} gave {len(answer.vectors)} vectors for "
                    f"{len(texts)} "
                    "texts; it must give one for each, in order"
                )
            return answer

        async def run(attempt: Attempt) -> Embeddings:
            return await attempted(attempt.place, attempt, make)

        async def discard(_: Embeddings) -> None:
            """Holds nothing."""

        try:
            answer = await gateway.carrier.carried(payment.places, target.policy, self._report, run, discard)
        finally:
            payment.settle()
        return answer.vectors

    async def _keep(self, indexes: list[int]) -> None:
        gateway = self._gateway
        journal = gateway.journal if self._entries else None
        for index in indexes if self._names else ():
            vector = self._found[index]
            if isinstance(vector, bytes):
                await gateway.remember(self._names[index], self._target.policy, vector)
        if journal is None:
            return
        kept = [
            journal.keep(self._entries[index], self._names[index], vector, gateway.wall_s())
            for index in indexes
            if isinstance(vector := self._found[index], bytes)
        ]
        await asyncio.gather(*kept)
        self._note()

    def _note(self) -> None:
        if self._naming is not None:
            self._naming.noted()

    def answers(self) -> tuple[Vector | Exception, ...]:
        """All of them."""
        return tuple(found for found in self._found if found is not None)


@asynccontextmanager
async def _all_or_none(tasks: Sequence[asyncio.Task[None]]) -> AsyncGenerator[None]:
    """Whatever ends the block early ends the tasks, and has seen them end."""
    try:
        yield
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
