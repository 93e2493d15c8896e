"""Opening providers: which class a name means, one object per endpoint.

Owns: `Providers`, the context providers are given.
Does not own: providers (entry points of group `flowrx.llm_providers`), calls.

Always holds: nothing is imported before an endpoint of that provider is called; calls to one endpoint share
one object. Holds the last `MOST` endpoints.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

import msgspec

from flowcore.context import HttpClient
from flowcore.errors import ConfigError, FlowError
from flowcore.findings import did_you_mean
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import Provider, ProviderFactory
from flowcore.values import Secret

GROUP: Final = "flowrx.llm_providers"
MOST: Final = 1_000


class RuntimeProviderContext:
    """What a provider works with."""

    def __init__(
        self,
        http: Callable[[], HttpClient],
        clock: Callable[[], float],
        secret: Callable[[str], Secret],
    ) -> None:
        self._http = http
        self._clock = clock
        self._secret = secret

    @property
    def http(self) -> HttpClient:
        return self._http()

    def now_s(self) -> float:
        return self._clock()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def secret(self, name: str) -> Secret:
        return self._secret(name)


class Providers:
    """The providers of one runtime.

    Args:
        given: factories by name; they win over entry points.
        context: for all of them.
    """

    def __init__(self, given: Mapping[str, ProviderFactory], context: RuntimeProviderContext) -> None:
        self._factories: dict[str, ProviderFactory] = dict(given)
        self.context: Final = context
        self._opened: OrderedDict[str, Provider] = OrderedDict()
        self._last: tuple[Endpoint, Provider] | None = None

    def of(self, endpoint: Endpoint) -> Provider:
        """The provider at an endpoint.

        Raises:
            ConfigError: there is none of that name, it cannot be imported, or the endpoint is not what it
                needs.
        """
        last = self._last
        if last is not None and last[0] is endpoint:
            return last[1]
        name = _name_of(endpoint)
        found = self._opened.get(name)
        if found is None:
            found = self._opened[name] = self._open(endpoint)
            if len(self._opened) > MOST:
                self._opened.popitem(last=False)
        else:
            self._opened.move_to_end(name)
        self._last = (endpoint, found)
        return found

    def _open(self, endpoint: Endpoint) -> Provider:
        factory = self._factory(endpoint.provider)
        try:
            opened: Any = factory(endpoint, self.context)
        except (FlowError, KeyboardInterrupt):
            raise
        except Exception as fault:
            raise ConfigError(
                f"provider {endpoint.provider!r} could not be opened: {type(fault).__name__}: {fault}; it "
                f"should "
                "take an Endpoint and a ProviderContext",
                field="provider",
            ) from fault
        if not isinstance(opened, Provider):
            raise ConfigError(
                f"provider {endpoint.provider!r} is no provider of models but a {type(opened).__name__}: it "
                f"lacks "
                "generate, stream, embed or count_tokens; name another one",
                field="provider",
            )
        return opened

    def _factory(self, name: str) -> ProviderFactory:
        found = self._factories.get(name)
        if found is not None:
            return found
        points = {point.name: point for point in entry_points(group=GROUP)}
        if name not in points:
            known = {*points, *self._factories}
            raise ConfigError(
                f"there is no provider {name!r}; {did_you_mean(name, known)}", field="provider", value=name
            )
        try:
            found = points[name].load()
        except ImportError as fault:
            raise ConfigError(
                f"provider {name!r} cannot be used: {fault}; install what it needs", field="provider"
            ) from fault
        self._factories[name] = found
        return found


def _name_of(endpoint: Endpoint) -> str:
    """Equal for endpoints that are the same, headers and options included; no secret can be read from it."""
    digest = hashlib.sha256(endpoint.identity("").encode())
    headers = sorted(
        (name, value.reveal() if isinstance(value, Secret) else value)
        for name, value in endpoint.headers.items()
    )
    rest = (headers, endpoint.options, endpoint.timeouts, endpoint.max_answer_bytes)
    digest.update(msgspec.msgpack.encode(rest, enc_hook=_revealed, order="deterministic"))
    return digest.hexdigest()


def _revealed(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else repr(value)
