"""What is known of one call, from its beginning to its one event.

Owns: `Report`: tokens, cost, attempts, times, the event.
Does not own: publishing (gateway), spans and metrics (flowruntime.telemetry).

Always holds: no key, prompt or answer is in it; a number nobody knows is None.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from flowcore.events import ErrorInfo, LlmCall
from flowcore.llm.answers import Usage
from flowcore.llm.calls import Prompt
from flowcore.llm.endpoint import Endpoint
from flowruntime.models.origin import Origin
from flowruntime.models.spending import Cost

Operation: TypeAlias = Literal["chat", "embeddings"]


def host_of(endpoint: Endpoint) -> str:
    """Where an endpoint is: host and port, without credentials, path and query; empty: the provider's own."""
    return "" if endpoint.base_url is None else _host_of_url(endpoint.base_url)


@lru_cache(maxsize=1_024)
def _host_of_url(url: str) -> str:
    parts = urlsplit(url if "//" in url else f"//{url}")
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    return host if port is None else f"{host}:{port}"


_TAKEN: Final = (
    "_spent", "_usd", "_usd_known", "attempts", "first_s", "hedged", "host", "model", "provider", "usage",
)  # fmt: skip
"""Of a report: what its call took, and where."""


class Report:
    """Of one call of a node or client, whatever it takes."""

    __slots__ = (
        "_spent", "_usd", "_usd_known", "attempts", "began", "began_at", "cached", "error", "first_s",
        "hedged", "host", "joined", "journaled", "model", "operation", "origin", "prompt", "provider",
        "put_off", "usage",
    )  # fmt: skip

    def __init__(
        self, operation: Operation, origin: Origin, prompt: Prompt | None, *, began: float, began_at: float
    ) -> None:
        self.operation: Operation = operation
        self.origin = origin
        self.prompt = prompt
        self.began = began
        """On the loop's clock."""
        self.began_at = began_at
        """Unix seconds."""
        self.provider = self.model = self.host = ""
        """Of whoever was asked last."""
        self.attempts = 0
        self.hedged = self.cached = self.joined = self.journaled = False
        self.put_off = False
        """It was not made: its row is stored until a budget has room."""
        self.first_s: float | None = None
        self.usage: Usage | None = None
        """Of all attempts that told it."""
        self.error: BaseException | None = None
        self._spent = 0
        self._usd = 0.0
        self._usd_known = True

    def asked(self, provider: str, model: str, host: str) -> None:
        """An attempt begins there."""
        self.attempts += 1
        self.provider, self.model, self.host = provider, model, host

    def ended(self, usage: Usage | None, tokens: int, usd: float | None) -> None:
        """An attempt is over.

        Args:
            usage: as the provider counted, where it did.
            tokens: counted, or as they were estimated.
            usd: what those cost; None: the price is not known.
        """
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage.plus(usage)
        self._spent += tokens
        if usd is None:
            self._usd_known = self._usd_known and not tokens
        else:
            self._usd += usd

    def adopt(self, other: Report) -> None:
        """What a shared call took is told by this one of those who waited for it."""
        for name in _TAKEN:
            setattr(self, name, getattr(other, name))

    @property
    def cost(self) -> Cost:
        """Of everything so far."""
        return Cost(self._spent, self._usd if self._usd_known else None)

    def event(self, now: float) -> LlmCall:
        """What is told of it."""
        origin, usage = self.origin, self.usage or Usage()
        return LlmCall(
            workflow_id=origin.workflow,
            execution_id=origin.execution_id(),
            task=origin.task,
            node=origin.node,
            operation=self.operation,
            provider=self.provider,
            model=self.model,
            endpoint=self.host,
            prompt="" if self.prompt is None else self.prompt.name,
            prompt_version="" if self.prompt is None else self.prompt.version,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost_usd=self.cost.usd,
            attempts=self.attempts,
            hedged=self.hedged,
            cached=self.cached or self.joined,
            journaled=self.journaled,
            started_at=self.began_at,
            duration_s=now - self.began,
            first_token_s=self.first_s,
            error=None if self.error is None else ErrorInfo.of(self.error).kind,
        )
