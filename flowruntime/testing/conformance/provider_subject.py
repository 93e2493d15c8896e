"""A provider of models under test, and the server that stands for the real one.

Owns: `ProviderSubject`, `ProviderDouble`, `StandaloneProviderContext`.
Does not own: what is tested (provider).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from flowcore.context import HttpClient
from flowcore.errors import SecretNotFoundError
from flowcore.llm.answers import Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import ProviderFactory
from flowcore.values import Secret

_NOW_S: Final = 1_772_366_400.0
"""2026-03-01 12:00:00 UTC."""

Manner = Literal["well", "cut", "stall", "endless", "hang", "torn"]
"""`cut`: ends after half of its pieces; `stall`: is silent from there on; `endless`: never ends; `hang`:
never begins; `torn`: the connection breaks after half of its pieces."""


class Seen(NamedTuple):
    """A request as the server saw it."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class ProviderDouble(Protocol):
    """A server that speaks the provider's wire format."""

    seen: list[Seen]
    open: int
    """Requests being answered now."""

    def endpoint(self, **changes: Any) -> Endpoint:
        """Where it is, with a key; `changes` are fields of Endpoint."""
        ...

    def answer(self, answer: Generation, vectors: Sequence[Sequence[float]] = ()) -> None:
        """What it says from now on: whole, in pieces, or as vectors, as it is asked."""
        ...

    def behave(self, manner: Manner) -> None:
        """How it says it from now on."""
        ...

    def raw(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """What it says from now on, whatever it is asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProviderSubject:
    """A provider under test."""

    factory: ProviderFactory
    serving: Callable[[], AbstractAsyncContextManager[ProviderDouble]]
    key: str
    """Of the double's endpoint."""
    variable: str | None = None
    """The environment variable a key is found in, where one is required."""
    embeds: bool = True
    names_answers: bool = True
    """An answer has an `id`."""
    generates: bool = True


class StandaloneProviderContext:
    """What a provider works with, in a test: real HTTP, a wall clock that stands still.

    Args:
        http: to send with.
        secrets: by name.
    """

    def __init__(self, http: HttpClient, secrets: Mapping[str, str] | None = None) -> None:
        self.http: Final = http
        self._secrets: Final = dict(secrets or {})

    def now_s(self) -> float:
        return _NOW_S

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def secret(self, name: str) -> Secret:
        if name not in self._secrets:
            raise SecretNotFoundError(f"no secret {name!r}", name=name)
        return Secret(self._secrets[name], name=name)
