"""What a provider is asked for: to generate, or to embed.

Owns: `GenerateRequest`, `EmbedRequest`, `Timeouts`.
Does not own: to whom it goes (endpoint), under which limits (policy).

Always holds: frozen plain data, so that two equal requests have equal content hashes (`content_hash`): the
key of caches, single-flight and the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

import msgspec

from flowcore.llm.messages import Message, OutputSchema, Tool

ToolChoice: TypeAlias = str
"""`auto`, `none`, `required`, or the name of the tool that must be called."""

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long one attempt may take, and its parts; the retries of a call have the deadline of its row."""

    connect: timedelta = timedelta(seconds=10)
    first_token: timedelta | None = timedelta(seconds=60)
    """From the request to the first byte of the answer; of an answer that does not stream: to its headers."""
    between_tokens: timedelta | None = timedelta(seconds=30)
    """Longest silence within a stream."""
    total: timedelta = timedelta(seconds=120)


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ask a model for an answer."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    """Of the answer; None: the provider's own bound."""
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    """None: auto where there are tools."""
    parallel_tools: bool | None = None
    output: OutputSchema | None = None
    cache_prompt: bool = False
    """Let the provider keep the prompt's beginning, where it must be asked to (Anthropic)."""
    extra: Mapping[str, Any] = {}
    """Fields added to the request as they are, for what only one provider has; they win over ours."""

    @property
    def is_deterministic(self) -> bool:
        """Whether the same request may be answered from a cache without being asked to: temperature 0."""
        return self.temperature == 0


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ask a model for vectors."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    """None: the model's own."""
    extra: Mapping[str, Any] = {}


def content_hash(request: GenerateRequest | EmbedRequest, endpoint: str = "") -> str:
    """SHA-256 in hex of what is asked and of whom: equal for equal requests in any process.

    Args:
        request: to hash; bytes of images count with their content.
        endpoint: the identity of who is asked (`Endpoint.identity`), without its key.

    Raises:
        TypeError, ValueError: `extra` holds what JSON cannot.

    Cost: one encoding of the request.
    """
    digest = hashlib.sha256(endpoint.encode())
    digest.update(b"\0")
    digest.update(type(request).__name__.encode())
    digest.update(_ENCODER.encode(request))
    return digest.hexdigest()
