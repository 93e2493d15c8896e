"""The gateway: every call of a model goes through it, whoever makes it (docs/adr/0030).

Owns: `Gateway`, one per runtime: resources, providers, caches, journal, budgets, what it tells of them.
Does not own: each step's rule (the other modules here), who calls (rowcalls, client).

Always holds: calls to one endpoint and model share one `Resource`; after `aclose` nothing of it runs. Nothing
queues but the calls themselves: at most one place in a line, and one request, per call under way.

    generate   cache -> journal -> single-flight -> budget -> endpoint -> circuit, cool-down, rates,
               concurrency -> attempt and hedge -> retry, or the next endpoint -> cache, journal
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from flowcore.errors import ConfigError, ControlError
from flowcore.events import BreakerChanged, CircuitState, LimitChanged, LlmCall
from flowcore.findings import did_you_mean
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.policy import CallPolicy
from flowcore.llm.provider import Provider
from flowcore.llm.requests import EmbedRequest, GenerateRequest, content_hash
from flowruntime.models.asks import Ask
from flowruntime.models.attempt import Place, rough_prompt, rough_tokens
from flowruntime.models.budgets import Budgets
from flowruntime.models.cache import MemoryCache
from flowruntime.models.carrying import Carrier
from flowruntime.models.flight import Flights
from flowruntime.models.kept import Answer
from flowruntime.models.limits import CONCURRENCY, REQUESTS, TOKENS
from flowruntime.models.opening import Providers, RuntimeProviderContext
from flowruntime.models.origin import Origin
from flowruntime.models.pricing import Price, Prices
from flowruntime.models.report import Report, host_of
from flowruntime.models.resource import Resource

if TYPE_CHECKING:
    from flowcore.context import HttpClient, LogLevel
    from flowcore.llm.provider import ProviderFactory
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.secrets import SecretStore
    from flowruntime.models.cache_file import FileCache
    from flowruntime.models.journal import CallJournal

Request = GenerateRequest | EmbedRequest

TIDY_AT: Final = 10_000
"""Resources, before idle ones are let go of: a client may come with a key per tenant."""

_MOST_ROUTES: Final = 1_000


class Surroundings(Protocol):
    """What the runtime lends the gateway (`Services`)."""

    @property
    def bus(self) -> EventBus: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def http(self) -> Callable[[], HttpClient]: ...
    @property
    def secrets(self) -> SecretStore: ...
    @property
    def log(self) -> Callable[[str, LogLevel, Mapping[str, object]], None]: ...


class _Route(NamedTuple):
    """An endpoint and a model, with what belongs to them; it keeps the endpoint, whose id is its name."""

    endpoint: Endpoint
    host: str
    provider: Provider
    resource: Resource
    keeps_time: bool


class Gateway:
    """Of one runtime.

    Args:
        services: bus, clock, HTTP, secrets, log.
        folder: `.flow` of the project, for the file cache and the journal; None: neither is kept.
        factories: providers by name, before those of entry points.
        prices: by model, before those of the package.
        seed: for the jitter of backoffs.
    """

    def __init__(
        self,
        services: Surroundings,
        *,
        folder: str | None,
        factories: Mapping[str, ProviderFactory],
        prices: Mapping[str, Price],
        seed: int | None,
    ) -> None:
        self._services: Final = services
        self._folder: Final = folder
        context = RuntimeProviderContext(services.http, services.clock, services.secrets.resolve)
        self.providers: Final = Providers(factories, context)
        self.prices: Final = Prices(prices, self._warn)
        self.carrier: Final = Carrier(seed)
        self.budgets: Final = Budgets()
        self.flights: Final[Flights[Any]] = Flights()
        self.memory: Final = MemoryCache()
        self.resources: Final[dict[str, Resource]] = {}
        self._routes: Final[dict[tuple[int, str], _Route]] = {}
        self.cached = self.journaled = self.calls = self.errors = 0
        self.usd = 0.0
        self._file: FileCache | None = None
        self._journal: CallJournal | None = None
        self._said: set[str] = set()
        self._tidy_at = TIDY_AT

    # --- who is asked -----------------------------------------------------------------------------------

    def places(self, request: Request, target: Target, origin: Origin) -> list[Place]:
        """The endpoints of a call, each opened, its limits declared.

        Raises:
            ConfigError: an endpoint cannot be used, or the target names none.
        """
        endpoints, models = target.endpoints, target.models
        if not endpoints:
            raise ConfigError("a target needs at least one endpoint", field="endpoints")
        most = request.max_tokens if isinstance(request, GenerateRequest) else 0
        found: list[Place] = []
        for index, endpoint in enumerate(endpoints):
            model = (models[index] if index < len(models) else None) or request.model
            route = self._route(endpoint, model)
            provider, resource = route.provider, route.resource
            resource.declare(target.policy)
            counts = bool(target.policy.budgets) or resource.rates.tokens.limit is not None
            prompt = provider.count_tokens(request) if counts else rough_prompt(request)
            key = origin.spender.key if origin.spender.key is not None else origin.spender.workflow
            found.append(
                Place(
                    endpoint=endpoint,
                    model=model,
                    host=route.host,
                    provider=provider,
                    resource=resource,
                    ask=Ask(target.policy, _hashable(key), rough_tokens(prompt, most)),
                    prompt_tokens=prompt,
                    answer_tokens=rough_tokens(0, most),
                    priced=self.prices.cost,
                    keeps_time=route.keeps_time,
                )
            )
        return found

    def _route(self, endpoint: Endpoint, model: str) -> _Route:
        """What is looked up for an endpoint, once for as long as it is the same object."""
        found = self._routes.get((id(endpoint), model))
        if found is None:
            provider, host = self.providers.of(endpoint), host_of(endpoint)
            resource = self.resource(endpoint.identity(model), endpoint.provider, host, model)
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            keeps_time = getattr(provider, "keeps_time", False) is True
            found = _Route(endpoint, host, provider, resource, keeps_time)
            self._routes[id(endpoint), model] = found
        return found

    def resource(self, identity: str, provider: str, host: str, model: str) -> Resource:
        """What calls to that endpoint and model share."""
        found = self.resources.get(identity)
        if found is None:
            self._tidy()
            tag = identity.rpartition("|")[2]
            name = f"{provider}/{host or 'default'}/{model}" + (f"#{tag[:8]}" if tag != "-" else "")
            found = self.resources[identity] = Resource(
                name,
                asyncio.get_running_loop(),
                limit_changed=self._limit_changed,
                circuit_changed=self._circuit_changed,
            )
        return found

    def _tidy(self) -> None:
        """With very many models and keys, let go of those of which nothing needs to be known."""
        if len(self.resources) < self._tidy_at:
            return
        now = asyncio.get_running_loop().time()
        for identity in [name for name, each in self.resources.items() if each.is_forgettable(now)]:
            del self.resources[identity]
        self._routes.clear()
        self._tidy_at = max(TIDY_AT, 2 * len(self.resources))

    # --- what is kept -----------------------------------------------------------------------------------

    @staticmethod
    def name_of(request: Request, target: Target) -> str:
        """The content hash of what is asked and of whom."""
        models = target.models
        who = [
            f"{endpoint.provider}|{endpoint.base_url or '-'}|{models[index] if index < len(models) else None}"
            for index, endpoint in enumerate(target.endpoints)
        ]
        return content_hash(request, "\n".join(who))

    async def recall(self, name: str, policy: CallPolicy) -> Answer | None:
        """The cached answer."""
        cache = policy.cache
        if cache is None:
            return None
        ttl_s = None if cache.ttl is None else cache.ttl.total_seconds()
        if cache.store == "memory":
            return self.memory.get(name, asyncio.get_running_loop().time(), ttl_s)
        file = self._file_cache()
        return None if file is None else await file.get(name, self._services.clock(), ttl_s)

    async def remember(self, name: str, policy: CallPolicy, answer: Answer) -> None:
        """Keep an answer in the cache."""
        cache = policy.cache
        if cache is None:
            return
        if cache.store == "memory":
            self.memory.put(name, answer, asyncio.get_running_loop().time(), cache.entries)
        elif (file := self._file_cache()) is not None:
            await file.put(name, answer, self._services.clock())

    def _file_cache(self) -> FileCache | None:
        if self._file is None and self._folder is not None:
            from flowruntime.models.cache_file import FileCache

            self._file = FileCache(self._folder, self._warn)
        if self._folder is None:
            self._say_once(
                "a cache of store: sqlite needs a folder, and this runtime has none (state_dir=None)"
            )
        return self._file

    @property
    def journal(self) -> CallJournal | None:
        """The call journal; None: this runtime keeps nothing on disk."""
        if self._journal is None and self._folder is not None:
            from flowruntime.models.journal import CallJournal

            self._journal = CallJournal(self._folder)
        if self._folder is None:
            self._say_once("calls are not journaled: this runtime keeps nothing on disk (state_dir=None)")
        return self._journal

    def spared(self, request: Request, target: Target, report: Report) -> None:
        """A call was answered from what is kept: a hit of the endpoint it would have asked first."""
        endpoint = target.endpoints[0]
        model = (target.models[0] if target.models else None) or request.model
        report.provider, report.model, report.host = endpoint.provider, model, host_of(endpoint)
        found = self.resources.get(endpoint.identity(model))
        if found is not None:
            found.hits += 1

    def wall_s(self) -> float:
        """Unix seconds."""
        return self._services.clock()

    # --- what is told -----------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """A call is over."""
        now = asyncio.get_running_loop().time()
        self.calls += 1
        self.errors += report.error is not None
        self.cached += report.cached or report.joined
        self.journaled += report.journaled
        self.usd += report.cost.usd or 0.0
        bus = self._services.bus
        if bus.active and bus.wants(LlmCall):
            bus.publish(report.event(now))

    def _limit_changed(self, resource: Resource, limit: str, before: int, after: int) -> None:
        bus = self._services.bus
        if bus.active and bus.wants(LimitChanged):
            bus.publish(
                LimitChanged(
                    workflow_id="", limit=f"model:{resource.name}:{limit}", before=before, capacity=after
                )
            )

    def _circuit_changed(self, resource: Resource, before: CircuitState) -> None:
        bus, circuit = self._services.bus, resource.circuit
        if circuit is not None and bus.active and bus.wants(BreakerChanged):
            bus.publish(
                BreakerChanged(
                    workflow_id="",
                    node="",
                    resource=f"model:{resource.name}",
                    before=before,
                    state=circuit.state,
                    opened=circuit.opened,
                )
            )

    def _warn(self, message: str) -> None:
        self._services.log(message, "warning", {})

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._warn(message)

    # --- control ----------------------------------------------------------------------------------------

    def set_limit(self, name: str, capacity: int) -> int:
        """Set a limit of a model anew: `model:NAME:concurrency`, `...:requests_per_minute`, and so on.

        Returns:
            What it was, 0 for none.

        Raises:
            ControlError: there is no such model or limit, or the capacity is none.
        """
        model, _, limit = name.removeprefix("model:").rpartition(":")
        known = {resource.name: resource for resource in self.resources.values()}
        if limit not in (CONCURRENCY, REQUESTS, TOKENS):
            raise ControlError(
                f"limit {name!r}: a model's limits are {CONCURRENCY}, {REQUESTS} and {TOKENS}", limit=name
            )
        if model not in known:
            raise ControlError(f"no model {model!r} was called yet; {did_you_mean(model, known)}", limit=name)
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - a user's call
            raise ControlError(
                f"limit {name!r} takes a whole number, at least 1, got {capacity!r}",
                limit=name,
                capacity=capacity,
            )
        return known[model].set_limit(limit, capacity)

    def statistics(self) -> dict[str, Any]:
        """Live figures, plain data: `resources` by name, caches, journal, budgets."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "cached": self.cached,
            "journaled": self.journaled,
            "cost_usd": self.usd,
            "resources": {resource.name: resource.statistics() for resource in self.resources.values()},
            "single_flight": {"under_way": len(self.flights), "joined": self.flights.joined},
            "cache": {
                "entries": len(self.memory),
                "bytes": self.memory.nbytes,
                "hits": self.memory.hits,
                "misses": self.memory.misses,
                "evicted": self.memory.evicted,
            },
            "cache_file": None
            if self._file is None
            else {"hits": self._file.hits, "misses": self._file.misses, "damaged": self._file.damaged},
            "journal": None if self._journal is None else self._journal.statistics(),
            "budgets": self.budgets.statistics(),
        }

    async def aclose(self) -> None:
        """Cancel what is shared, stop every timer, close the files. Idempotent."""
        await self.flights.aclose()
        for resource in self.resources.values():
            resource.close()
        if self._file is not None:
            await self._file.aclose()
        if self._journal is not None:
            await self._journal.aclose()


def _hashable(key: Any) -> Any:
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key
