"""The provider `local`: all-MiniLM-L6-v2 on this machine's processor.

Owns: the model of this process, loaded at the first call, and its two faces: a blocking function for threads
and worker processes, and the provider protocol.
Does not own: the arithmetic (minilm) or how many calls run at once (the runtime; one per core is best).

Always holds: importing this module imports no numpy; a process loads the model once, whatever calls it at
once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Final

from flowcore.errors import ConfigError, FlowError, RunError
from flowcore.findings import shown
from flowcore.health import Health, HealthContext
from flowcore.llm.answers import Delta, Embeddings, Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import RequestRefusedError
from flowcore.llm.provider import ProviderContext
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.vectors import BYTES_PER_FLOAT, Vector
from flownodes.extras import needing
from flownodes.llm.providers.local.installed import INSTALL_EXTRA, PACKAGES, missing
from flownodes.single_blas import import_numpy

if TYPE_CHECKING:
    from flownodes.llm.providers.local.minilm import MiniLM

MODEL: Final = "all-MiniLM-L6-v2"
DIMENSIONS: Final = 384
MOST_TEXTS: Final = 1_024
"""Of one call: beyond that a batch keeps a core for seconds."""
_CHARACTERS_PER_TOKEN: Final = 4


class _Shared:
    """The one model of this process."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._model: MiniLM | None = None

    def model(self) -> MiniLM:
        if self._model is None:
            with self._lock:
                if self._model is None:
                    self._model = _load()
        return self._model


def _load() -> MiniLM:
    with needing(PACKAGES, what="the local embedding", install=INSTALL_EXTRA):
        import_numpy()
        from flownodes.llm.providers.local.minilm import MiniLM
    return MiniLM.load()


_shared: Final = _Shared()


def embed_texts(texts: Sequence[str], *, truncate: bool = True) -> list[Vector]:
    """One vector per text, in order; blocks. For a thread or a worker process, where it loads the model once.

    Batches of 32 to 128 texts are best; the cores are used by calling it from as many threads at once.

    Args:
        texts: any number of texts.
        truncate: False refuses a text of more than the model's 256 tokens; True cuts it there.

    Raises:
        MissingExtraError: packages or weights are not installed; the message has the line that installs them.
        TextRefusedError: an item is no str, holds a lone surrogate, or is too long.
    """
    packed = _shared.model().embed(texts, truncate=truncate).astype("<f4", copy=False).tobytes()
    step = DIMENSIONS * BYTES_PER_FLOAT
    return [packed[start : start + step] for start in range(0, len(packed), step)]


class LocalProvider:
    """The provider protocol over `embed_texts`: works in a thread, so the loop stays free.

    Args:
        endpoint: its `options` may say `truncate`, see `embed_texts`; it takes no address and no key.
        ctx: not needed.

    Raises:
        ConfigError: the endpoint says what this provider does not know.
    """

    def __init__(self, endpoint: Endpoint | None = None, ctx: ProviderContext | None = None) -> None:
        del ctx
        self.name: Final = "local"
        self.dimensions: Final = DIMENSIONS
        self.max_embed_texts: Final = MOST_TEXTS
        self._truncate: Final = _truncates(endpoint)

    async def embed(self, request: EmbedRequest, ctx: ProviderContext | None = None) -> Embeddings:
        """One vector per text, in order.

        Cancelling returns at once; the thread finishes its batch and its vectors are discarded.

        Raises:
            ConfigError: another model than all-MiniLM-L6-v2 was asked for, or other dimensions.
            MissingExtraError: as `embed_texts`.
            RequestRefusedError: a text is none, or too long.
        """
        del ctx
        if request.model != MODEL:
            raise ConfigError(f"provider 'local' has no model {shown(request.model)}; set model: {MODEL}")
        if request.dimensions not in (None, DIMENSIONS):
            raise ConfigError(
                f"{MODEL} gives {DIMENSIONS} numbers, not {request.dimensions}; leave dimensions out"
            )
        try:
            vectors = await asyncio.to_thread(embed_texts, request.texts, truncate=self._truncate)
        except ValueError as refused:
            if isinstance(refused, FlowError) and not isinstance(refused, RunError):
                raise
            raise RequestRefusedError(
                str(refused), provider=self.name, model=MODEL, code="text_refused"
            ) from refused
        return Embeddings(vectors=tuple(vectors), model=MODEL)

    async def generate(self, request: GenerateRequest, ctx: ProviderContext | None = None) -> Generation:
        """Refused: it embeds only."""
        del ctx
        raise _only_embeds(request)

    async def stream(
        self, request: GenerateRequest, ctx: ProviderContext | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Refused: it embeds only."""
        del ctx
        raise _only_embeds(request)
        yield Delta()

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        """By its length: nothing here costs by the token."""
        texts = request.texts if isinstance(request, EmbedRequest) else [m.text for m in request.messages]
        return max(1, sum(len(text) for text in texts) // _CHARACTERS_PER_TOKEN)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether everything it computes with is installed; nothing is loaded."""
        del ctx
        absent = missing()
        if absent is None:
            return Health("ok", f"{MODEL}, on this machine")
        what, install = absent
        return Health("failing", f"not installed: {what}; run: {install}")


def _truncates(endpoint: Endpoint | None) -> bool:
    if endpoint is None:
        return True
    if endpoint.base_url is not None:
        raise ConfigError("provider 'local' computes on this machine; remove base_url", field="base_url")
    unknown = sorted(set(endpoint.options) - {"truncate"})
    if unknown:
        raise ConfigError(
            f"provider 'local' has no option {shown(unknown[0])}; it has truncate", field="options"
        )
    truncate = endpoint.options.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ConfigError(f"options.truncate must be true or false, not {shown(truncate)}", field="options")
    return truncate


def _only_embeds(request: GenerateRequest) -> RequestRefusedError:
    return RequestRefusedError(
        "provider 'local' embeds only; name another provider for answers",
        provider="local",
        model=request.model,
        code="unsupported",
    )
