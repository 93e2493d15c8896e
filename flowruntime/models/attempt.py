"""One attempt at one endpoint, and its hedge: begun within the limits, ended with what it took.

Owns: `Place`, an endpoint a call may be made at; `attempted`, `raced`.
Does not own: when an attempt may begin (resource), whether a further one follows (carrying).

Always holds: an admission is ended once, whatever becomes of the attempt; of two attempts that race, the one
that is not needed is cancelled and has ended before the answer is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from flowcore.errors import FlowError
from flowcore.llm.answers import RateLimits, Usage
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import ProviderTimeoutError
from flowcore.llm.policy import Hedge
from flowcore.llm.provider import Provider
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowruntime.models.asks import Admission, Ask
from flowruntime.models.estimate import ANSWER_TOKENS
from flowruntime.models.report import Report
from flowruntime.models.resource import Resource

T = TypeVar("T")

_CHARACTERS: Final = 4
"""Of a token, roughly."""


class Told(Protocol):
    """What every answer may tell beside itself."""

    @property
    def usage(self) -> Usage | None: ...
    @property
    def limits(self) -> RateLimits | None: ...


A = TypeVar("A", bound=Told)

Priced = Callable[[str, str, Usage], float | None]
"""Provider, model and usage: US dollars."""


@dataclass(slots=True)
class Place:
    """An endpoint, the model asked for there, and how much is asked."""

    endpoint: Endpoint
    model: str
    host: str
    provider: Provider
    resource: Resource
    ask: Ask
    prompt_tokens: int
    """Estimated."""
    answer_tokens: int
    priced: Priced
    keeps_time: bool = False
    """The provider ends each exchange within the endpoint's total timeout by itself."""
    failed: BaseException | None = field(default=None)
    """What it failed with last."""
    tries: int = 0
    given_up: bool = False

    @property
    def total_s(self) -> float:
        return self.endpoint.timeouts.total.total_seconds()

    def cost(self, usage: Usage) -> float | None:
        """US dollars."""
        return self.priced(self.endpoint.provider, self.model, usage)

    def estimated(self) -> Usage:
        """What one attempt is expected to take."""
        ratio = self.resource.estimate.ratio
        return Usage(
            input_tokens=max(1, round(self.prompt_tokens * ratio)),
            output_tokens=round(self.answer_tokens * ratio),
        )

    def too_slow(self) -> ProviderTimeoutError:
        """The whole attempt took too long."""
        return ProviderTimeoutError(
            f"{self.endpoint.provider} {self.model!r} has not answered within {self.total_s:g} s; raise "
            "timeouts.total, or ask for less",
            provider=self.endpoint.provider,
            model=self.model,
            status=None,
            request_id=None,
            phase="total",
            timeout_s=self.total_s,
        )


def rough_tokens(prompt: int, most: int | None) -> int:
    """Prompt and answer, before experience corrects it."""
    return prompt + (ANSWER_TOKENS if most is None else most)


def rough_prompt(request: GenerateRequest | EmbedRequest) -> int:
    """Tokens of a prompt by its length, where neither a limit nor a budget asks for more.

    Counting them well costs some 100 us, and the vocabulary 100 MiB.
    """
    if isinstance(request, EmbedRequest):
        return max(1, sum(map(len, request.texts)) // _CHARACTERS)
    return max(1, sum(len(message.text) for message in request.messages) // _CHARACTERS)


class Attempt:
    """An attempt under way: ends its admission once.

    Args:
        place: where.
        admission: it was begun with.
        report: of its call.
    """

    __slots__ = ("_admission", "_over", "_report", "place")

    def __init__(self, place: Place, admission: Admission, report: Report) -> None:
        self.place = place
        self._admission = admission
        self._report = report
        self._over = False
        report.asked(place.endpoint.provider, place.model, place.host)

    @property
    def began(self) -> float:
        """On the loop's clock."""
        return self._admission.at

    def end(
        self,
        error: BaseException | None,
        *,
        usage: Usage | None = None,
        limits: RateLimits | None = None,
        cancelled: bool = False,
    ) -> None:
        """It is over; what a second call says is not heard."""
        if self._over:
            return
        self._over = True
        place = self.place
        known = None if usage is None else usage.total_tokens
        place.resource.ended(self._admission, error, tokens=known, limits=limits, cancelled=cancelled)
        if usage is None and error is not None and _free_of_charge(error):
            return
        # Where it was cancelled, or did not tell: that it took what was expected is the safe guess.
        taken = usage or place.estimated()
        usd = place.cost(taken)
        place.resource.usd += usd or 0.0
        self._report.ended(usage, taken.total_tokens, usd)


def _free_of_charge(error: BaseException) -> bool:
    """A provider that refuses or is not there counts nothing; what was begun and broke may cost."""
    return isinstance(error, FlowError) and not isinstance(error, TimeoutError)


async def attempted(place: Place, attempt: Attempt, make: Callable[[Place], Awaitable[A]]) -> A:
    """Make one attempt that gives its whole answer, under the endpoint's total timeout."""
    limit = None if place.keeps_time else asyncio.timeout(place.total_s)
    try:
        if limit is None:
            answer = await make(place)
        else:
            async with limit:
                answer = await make(place)
    except asyncio.CancelledError as fault:
        attempt.end(fault, cancelled=True)
        raise
    except TimeoutError as fault:
        if isinstance(fault, FlowError) or limit is None or not limit.expired():
            attempt.end(fault)
            raise
        error = place.too_slow()
        attempt.end(error)
        raise error from fault
    except BaseException as fault:
        attempt.end(fault)
        raise
    attempt.end(None, usage=answer.usage, limits=answer.limits)
    return answer


Run = Callable[[Attempt], Coroutine[Any, Any, T]]
Discard = Callable[[T], Awaitable[None]]


async def raced(place: Place, report: Report, hedge: Hedge | None, run: Run[T], discard: Discard[T]) -> T:
    """An attempt, and a second one where the first is slow; the answer that comes first.

    Args:
        place: where.
        report: of the call.
        hedge: when and how often; None: never.
        run: makes an attempt that was let in, and ends it.
        discard: undoes an answer that nobody takes.
    """
    first = Attempt(place, await place.resource.admit(place.ask), report)
    if hedge is None:
        return await run(first)
    race = _Race(place, run, discard)
    try:
        return await race.won(first, hedge, report)
    finally:
        await race.end()


class _Race(Generic[T]):
    """Two attempts at most, each in a task of its own."""

    def __init__(self, place: Place, run: Run[T], discard: Discard[T]) -> None:
        self._place = place
        self._run = run
        self._discard = discard
        self._tasks: dict[asyncio.Task[T], Attempt] = {}
        self._taken: asyncio.Task[T] | None = None

    def _start(self, attempt: Attempt) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(self._run(attempt), name="flow model attempt")
        self._tasks[task] = attempt
        return task

    async def won(self, attempt: Attempt, hedge: Hedge, report: Report) -> T:
        """The answer that comes first; the error of the first attempt where both fail."""
        hedging = self._place.resource.hedging
        hedging.called()
        delay_s = hedging.delay_s(hedge, self._place.resource.p95)
        first = self._start(attempt)
        await asyncio.wait([first], timeout=delay_s)
        second = None if first.done() else _second(self._place, hedge, report)
        pending: set[asyncio.Task[T]] = {first}
        if second is not None:
            report.hedged = True
            pending.add(self._start(second))
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task in done and not task.cancelled() and task.exception() is None:
                    hedging.won += task is not first
                    self._taken = task
                    return task.result()
        self._taken = first
        return first.result()

    async def end(self) -> None:
        """Cancel what still runs, wait for its end, undo what nobody takes."""
        left = {task: attempt for task, attempt in self._tasks.items() if task is not self._taken}
        for task in left:
            task.cancel()
        ended = await asyncio.gather(*left, return_exceptions=True)
        for attempt, answer in zip(left.values(), ended, strict=True):
            if isinstance(answer, BaseException):
                attempt.end(answer, cancelled=True)  # one that was cancelled before its first step
            else:
                await self._discard(answer)


def _second(place: Place, hedge: Hedge, report: Report) -> Attempt | None:
    """A second attempt is let in only where it need not wait: a busy model is not made busier."""
    resource = place.resource
    ask = place.ask.again()
    try:
        if not resource.is_free(ask) or not resource.hedging.take(hedge):
            return None
        admission = resource.try_admit(ask)
    except FlowError:
        return None
    return None if admission is None else Attempt(place, admission, report)
