"""Where a model is reached: a provider, its address, a key.

Owns: `Endpoint`, and the identity under which calls of all nodes, runs and clients share their limits.
Does not own: the provider's class (entry points of group `flowrx.llm_providers`), the limits (policy).

Always holds: the key is a Secret and is part of the identity only as a hash that cannot be turned back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowcore.llm.requests import Timeouts
from flowcore.values import Secret

_KEY_BYTES: Final = 8


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One provider at one address with one key."""

    provider: str
    """`openai`, `anthropic`, `ollama`, `scripted`, ...: the name of its entry point."""
    base_url: str | None = None
    """None: the provider's own."""
    api_key: Secret | None = None
    """None: the provider's usual environment variable, where it needs a key; resolved when it is opened."""
    headers: Mapping[str, str | Secret] = {}
    """Added to each request; they win over ours."""
    timeouts: Timeouts = Timeouts()
    max_answer_bytes: int = 32 * 1024 * 1024
    """Of one decoded answer; of a stream: of all its pieces together."""
    options: Mapping[str, Any] = {}
    """What only this provider knows (`api_version`, `organization`, `script`); it refuses unknown ones."""

    def identity(self, model: str) -> str:
        """The name of what calls share: provider, address, model, and a hash of the key.

        Cost: one hash; keep it.
        """
        key = "" if self.api_key is None else self.api_key.reveal()
        tag = hashlib.sha256(b"flowrx\0" + key.encode()).hexdigest()[: 2 * _KEY_BYTES] if key else "-"
        return f"{self.provider}|{self.base_url or '-'}|{model}|{tag}"
