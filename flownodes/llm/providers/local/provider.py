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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from flowcore.errors import ConfigError
from flowcore.findings import shown
from flowcore.providers import BYTES_PER_FLOAT, Vector
from flownodes.extras import needing
from flownodes.single_blas import import_numpy

if TYPE_CHECKING:
    from flownodes.llm.providers.local.minilm import MiniLM

MODEL: Final = "all-MiniLM-L6-v2"
DIMENSIONS: Final = 384
INSTALL_EXTRA: Final = "uv pip install 'flowrx[embed]'"


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
    with needing(("numpy", "safetensors", "tokenizers"), what="the local embedding", install=INSTALL_EXTRA):
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
        truncate: see `embed_texts`.
    """

    def __init__(self, *, truncate: bool = True) -> None:
        self.name: Final = "local"
        self.dimensions: Final = DIMENSIONS
        self._truncate: Final = truncate

    async def embed(self, texts: Sequence[str], *, model: str = MODEL) -> Sequence[Vector]:
        """One vector per text, in order.

        Cancelling returns at once; the thread finishes its batch and its vectors are discarded.

        Raises:
            ConfigError: another model than all-MiniLM-L6-v2 was asked for.
            MissingExtraError, TextRefusedError: as `embed_texts`.
        """
        if model != MODEL:
            raise ConfigError(f"provider 'local' has no model {shown(model)}; set model: {MODEL}")
        return await asyncio.to_thread(embed_texts, texts, truncate=self._truncate)
