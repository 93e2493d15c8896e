"""What tokens cost.

Owns: `Price`, `Prices`. Does not own: the data (package `genai-prices`, extra `llm`, as of its release;
nothing is fetched), budgets.

Always holds: a price that is not known is None, never 0 (what runs on the user's machine costs 0); that is
said once per model. The package is imported
off the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from flowcore.findings import Findings
from flowcore.llm.answers import Usage

_PER: Final = 1_000_000
FREE: Final = frozenset({"local", "scripted", "ollama", "vllm", "llamacpp"})
"""Providers that run where the user lets them: tokens cost nothing, unless the table says otherwise."""
_NOT_NEGATIVE: Final = msgspec.Meta(ge=0)


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens."""

    input: Annotated[float, _NOT_NEGATIVE]
    output: Annotated[float, _NOT_NEGATIVE] = 0.0
    cached: Annotated[float, _NOT_NEGATIVE] | None = None
    """Of the input, read from the provider's cache; None: as the rest of it."""
    cache_write: Annotated[float, _NOT_NEGATIVE] | None = None

    def of(self, usage: Usage) -> float:
        """What a call costs, in US dollars."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_write is None else self.cache_write
        plain = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
        return (
            plain * self.input
            + usage.cached_tokens * cached
            + usage.cache_write_tokens * written
            + usage.output_tokens * self.output
        ) / _PER


def read_prices(given: Mapping[str, Price | Mapping[str, Any]], findings: Findings) -> dict[str, Price]:
    """Prices by model, also from their plain forms: `{"gpt-4o": {"input": 2.5, "output": 10}}`."""
    found: dict[str, Price] = {}
    for model, said in given.items():
        try:
            found[model] = said if isinstance(said, Price) else msgspec.convert(said, Price)
        except msgspec.ValidationError as fault:
            remedy = "give input and output in US dollars per million tokens, and cached, cache_write"
            findings.add(("prices", model), str(fault), value=said, remedy=remedy)
    return found


class Prices:
    """Prices by provider and model.

    Args:
        table: `{"gpt-4o": Price(...)}` or `{"openai/gpt-4o": ...}`; it wins over the package.
        report: told once of each model without a price.
    """

    def __init__(self, table: Mapping[str, Price], report: Callable[[str], None]) -> None:
        self._table: Final = dict(table)
        self._report: Final = report
        self._package: Any = None
        self._loading: asyncio.Future[Any] | None = None
        self._unknown: set[tuple[str, str]] = set()
        self._flat: dict[tuple[str, str], Price] = {}
        """Of the package: what costs the same per token however many there are, and whenever."""

    async def ready(self, providers: Iterable[str]) -> None:
        """Load the package, once, off the loop, unless calls of these providers need no price from it."""
        if FREE.issuperset(providers):
            return
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(None, _load)
        if self._package is None:
            self._package = await asyncio.shield(self._loading)

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """US dollars; None: the price is not known."""
        name = (provider, model)
        if name in self._unknown:
            return None
        own = self._flat.get(name) or self._table.get(f"{provider}/{model}") or self._table.get(model)
        if own is not None:
            return own.of(usage)
        if provider in FREE:
            return 0.0
        found = self._of_package(provider, model, usage)
        if found is None:
            self._unknown.add(name)
            why = "" if self._package else " (install flowrx[llm] for a table of prices)"
            self._report(
                f"the price of model {model!r} of {provider!r} is not known, so its calls have no cost{why}; "
                "give it by FlowRuntime(prices={...})"
            )
        return found

    def _of_package(self, provider: str, model: str, usage: Usage) -> float | None:
        if not self._package:
            return None
        counted = self._package.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        try:
            price = self._package.calc_price(counted, model, provider_id=provider)
        except (LookupError, ValueError):
            return None
        flat = _flat_price(price)
        if flat is not None:
            self._flat[provider, model] = flat
        return float(price.total_price)


def _flat_price(calculation: Any) -> Price | None:
    """The prices of a model as ours; None where they depend on the size of the request or the time of day."""
    model = calculation.model_price
    if isinstance(calculation.model.prices, list):
        return None
    rates = {
        ours: getattr(model, theirs, None)
        for ours, theirs in (
            ("input", "input_mtok"),
            ("output", "output_mtok"),
            ("cached", "cache_read_mtok"),
            ("cache_write", "cache_write_mtok"),
        )
    }
    if rates["input"] is None or any(not isinstance(rate, Decimal | None) for rate in rates.values()):
        return None
    return Price(**{name: float(rate) for name, rate in rates.items() if rate is not None})


def _load() -> Any:
    """The package; False where it is not installed."""
    try:
        import genai_prices
    except ImportError:
        return False
    genai_prices.calc_price(genai_prices.Usage(input_tokens=1), "gpt-4o-mini")  # reads its data
    return genai_prices
