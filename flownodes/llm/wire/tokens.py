"""How many tokens a prompt will count, estimated without a call.

Owns: `count`, by the tables of OpenAI's models where the package bpe-openai is there (extra `llm`), else by
characters.
Does not own: what was counted in truth (`Usage`), how estimates are corrected (the runtime).

Always holds: at least 1; never blocks: the tables take about a second to load and are loaded in a thread by
the first call, and until they are there it counts characters.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from flowcore.llm.messages import ImagePart
from flowcore.llm.requests import EmbedRequest, GenerateRequest

CHARACTERS_PER_TOKEN: Final = 4
"""A rule of thumb for English; other languages have fewer."""
PER_MESSAGE: Final = 4
"""Role and separators, about."""
PER_IMAGE: Final = 765
"""A picture of 1024 x 1024 at OpenAI, for one; providers differ."""

_EARLIER: Final = ("gpt-4-", "gpt-4", "gpt-3.5", "text-embedding-")
_LATER: Final = ("gpt-4o", "gpt-4.1", "gpt-4.5")

Count = Callable[[str], int]


class Tables:
    """The tables of this process, by the name of their encoding."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._counts: dict[str, Count | None] = {}

    def of(self, encoding: str) -> Count | None:
        """How to count with it; None while it loads, and where the package is not installed."""
        if encoding not in self._counts:
            with self._lock:
                if encoding in self._counts:
                    return self._counts[encoding]
                self._counts[encoding] = None
            threading.Thread(
                target=self.load, args=(encoding,), name=f"flow tokens {encoding}", daemon=True
            ).start()
        return self._counts[encoding]

    def load(self, encoding: str) -> None:
        """Load one; blocks for about a second the first time."""
        try:
            import bpe_openai
        except (ImportError, Warning):
            # It uses a function that Python 3.11 and 3.12 call deprecated: where warnings are errors, it is
            # not there. The filters of warnings, which all threads share, are not touched for that.
            return
        encode: Any = bpe_openai.get_encoding(encoding).encode_ordinary
        self._counts[encoding] = lambda text: len(encode(text))


_tables: Final = Tables()


def count(request: GenerateRequest | EmbedRequest, tables: Tables = _tables) -> int:
    """Tokens of the prompt, about; at least 1.

    Cost: some 30 us per KB by tables, less by characters.
    """
    by_table = tables.of(_encoding(request.model))
    total = 0
    for text in _texts(request):
        total += _counted(text, by_table)
    if isinstance(request, GenerateRequest):
        total += PER_MESSAGE * len(request.messages) + PER_IMAGE * _images(request)
    return max(1, total)


def _counted(text: str, by_table: Count | None) -> int:
    if by_table is not None:
        try:
            return by_table(text)
        except (ValueError, RuntimeError):  # a lone surrogate, which no provider takes either
            pass
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _encoding(model: str) -> str:
    name = model.rpartition("/")[2]
    is_earlier = name.startswith(_EARLIER) and not name.startswith(_LATER)
    return "cl100k_base" if is_earlier else "o200k_base"


def _texts(request: GenerateRequest | EmbedRequest) -> Iterator[str]:
    if isinstance(request, EmbedRequest):
        yield from request.texts
        return
    for message in request.messages:
        yield message.text
        for call in message.tool_calls:
            yield f"{call.name} {call.arguments}"
    for tool in request.tools:
        yield f"{tool.name} {tool.description}"
        yield _json(tool.parameters)
    if request.output is not None:
        yield _json(request.output.schema)


def _json(schema: Any) -> str:
    try:
        return msgspec.json.encode(schema).decode()
    except (TypeError, ValueError):
        return str(schema)


def _images(request: GenerateRequest) -> int:
    return sum(
        isinstance(part, ImagePart)
        for message in request.messages
        if not isinstance(message.content, str)
        for part in message.content
    )
