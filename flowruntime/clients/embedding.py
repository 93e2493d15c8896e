"""`EmbeddingClient`: vectors of texts without a workflow.

Owns: the methods a program calls. Does not own: calls (the runtime's gateway), where they run (hosting).

Always holds: a batch keeps its order and its length, a text that failed is a `Failure` in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from flowcore.errors import ConfigError
from flowcore.llm.requests import EmbedRequest
from flowcore.vectors import Vector, floats_of, similarity_of
from flowruntime.clients.hosting import Hosting
from flowruntime.clients.results import Failure, failure_of

if TYPE_CHECKING:
    from flowruntime.clients.config import EmbeddingConfig
    from flowruntime.runtime import FlowRuntime

CHUNK_CHARACTERS: Final = 2_000
"""Of one piece of a document, where nobody says."""


class EmbeddingClient:
    """Embeds with one model; vectors are lists of float.

    Args:
        config: who is asked.
        runtime: an open FlowRuntime; None: the one of this process.
    """

    def __init__(self, config: EmbeddingConfig, *, runtime: FlowRuntime | None = None) -> None:
        self._config: Final = config
        self._target: Final = config.target()
        self._hosting: Final = Hosting(runtime)

    def embed_text(self, text: str) -> list[float]:
        """The vector of one text; blocks.

        Raises:
            ConfigError: the text is empty.
            ProviderError: what remains after retries and fallbacks.
        """
        return self._hosting.wait(lambda runtime: self._one(runtime, text))

    async def embed_text_async(self, text: str) -> list[float]:
        """As `embed_text`."""
        return await self._hosting.do(lambda runtime: self._one(runtime, text))

    def embed_batch(self, texts: Sequence[str]) -> list[list[float] | Failure]:
        """A vector or a `Failure` for each text, in order, in as few calls as the provider takes; blocks."""
        return self._hosting.wait(lambda runtime: self._batch(runtime, texts))

    async def embed_batch_async(self, texts: Sequence[str]) -> list[list[float] | Failure]:
        """As `embed_batch`."""
        return await self._hosting.do(lambda runtime: self._batch(runtime, texts))

    def embed_document(
        self, text: str, *, characters: int = CHUNK_CHARACTERS
    ) -> list[tuple[str, list[float] | Failure]]:
        """The pieces of a long text, cut at white space, each with its vector; blocks.

        Args:
            text: of any length.
            characters: of a piece at most.

        Raises:
            ConfigError: the text is empty, or `characters` below 1.
        """
        pieces = pieces_of(text, characters)
        return list(zip(pieces, self.embed_batch(pieces), strict=True))

    @staticmethod
    def similarity(a: Sequence[float], b: Sequence[float]) -> float:
        """Cosine of the angle between two vectors, -1 to 1.

        Raises:
            CoercionError: different lengths, or a vector of zeros, which has no direction.
        """
        return similarity_of(a, b)

    # --- on the runtime's loop -----------------------------------------------------------------------------

    async def _one(self, runtime: FlowRuntime, text: str) -> list[float]:
        if not _is_text(text):
            raise _no_text(text)
        (vector,) = await self._vectors(runtime, [text])
        if isinstance(vector, Exception):
            raise vector
        return floats_of(vector)

    async def _batch(self, runtime: FlowRuntime, texts: Sequence[str]) -> list[list[float] | Failure]:
        config = self._config
        found: list[Vector | Exception] = [b"" if _is_text(text) else _no_text(text) for text in texts]
        places = [place for place, each in enumerate(found) if isinstance(each, bytes)]
        if places:
            try:
                vectors = await self._vectors(runtime, [texts[place] for place in places])
            except Exception as error:  # noqa: BLE001 - it concerns every text, and each says so
                vectors = [error] * len(places)
            for place, vector in zip(places, vectors, strict=True):
                found[place] = vector
        return [
            failure_of(each, index, config.provider, config.model)
            if isinstance(each, Exception)
            else floats_of(each)
            for index, each in enumerate(found)
        ]

    async def _vectors(self, runtime: FlowRuntime, texts: Sequence[str]) -> Sequence[Vector | Exception]:
        request = EmbedRequest(
            model=self._config.model, texts=tuple(texts), dimensions=self._config.dimensions
        )
        return await runtime.models.embed(request, self._target)


def _is_text(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _no_text(text: object) -> ConfigError:
    if isinstance(text, str):
        return ConfigError("the text is empty; there is nothing to embed", value=text[:100])
    return ConfigError(f"a text is embedded, not {type(text).__name__}", value=repr(text)[:100])


def pieces_of(text: str, characters: int) -> list[str]:
    """The text in pieces of at most so many characters, cut at white space where there is some.

    Args:
        text: of any length; white space around and between pieces is left out.
        characters: of a piece, at least 1.

    Raises:
        ConfigError: the text is empty, or `characters` below 1.
    """
    if characters < 1:
        raise ConfigError(f"characters={characters} must be at least 1", value=characters)
    if not _is_text(text):
        raise _no_text(text)
    pieces: list[str] = []
    rest = text.strip()
    while len(rest) > characters:
        window = rest[: characters + 1]
        spaces = [at for at, character in enumerate(window) if character.isspace()]
        cut = spaces[-1] if spaces else characters
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*pieces, rest] if rest else pieces
