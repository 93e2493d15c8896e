"""`ctx.models`: calls of models on behalf of one row, batch or client.

Owns: `BoundModels`, which numbers the calls of its row and makes them in the gateway's order.
Does not own: embedding many texts (embedding), the steps themselves (gateway, paid, carrying).

Always holds: each call ends with one report, whatever became of it; an answer that is journaled is durable
before its last piece is given; a stream is retried only until its first piece has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from itertools import count
from typing import Any, Final

import msgspec

from flowcore.llm.answers import Delta, Generation
from flowcore.llm.calls import Prompt, Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import BudgetExceededError
from flowcore.llm.policy import CallPolicy
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.vectors import Vector
from flowruntime.models.attempt import Attempt, Place, attempted
from flowruntime.models.budgets import put_off_s
from flowruntime.models.embedding import embedded
from flowruntime.models.gateway import Gateway
from flowruntime.models.journal import CallName
from flowruntime.models.kept import Answer
from flowruntime.models.origin import Origin
from flowruntime.models.paid import paid
from flowruntime.models.report import Operation, Report
from flowruntime.models.streaming import Begun, begin_stream


class BoundModels:
    """The `Models` of one origin.

    Args:
        gateway: of the runtime.
        origin: on whose behalf.
    """

    __slots__ = ("_gateway", "_numbers", "_origin")

    def __init__(self, gateway: Gateway, origin: Origin) -> None:
        self._gateway: Final = gateway
        self._origin: Final = origin
        self._numbers = count()

    # --- generating -------------------------------------------------------------------------------------

    async def generate(
        self, request: GenerateRequest, target: Target, *, prompt: Prompt | None = None
    ) -> Generation:
        """See `flowcore.llm.calls.Models`."""
        report = self._report("chat", prompt)
        call = _Call(self._gateway, self._origin, request, target, str(next(self._numbers)))
        try:
            answer = await call.kept(report)
            if not isinstance(answer, Generation):
                answer = await self._in_time(call, report)
                await call.journal(answer)
            usd = report.cost.usd
            return answer if answer.cost_usd == usd else msgspec.structs.replace(answer, cost_usd=usd)
        except BaseException as error:
            report.error = error
            raise
        finally:
            if not report.put_off:
                self._gateway.report(report)

    async def _in_time(self, call: _Call, report: Report) -> Generation:
        """The call; while its budget has no room and says to wait, its row is stored, and comes back here.

        The row, not the call, is what waits: an equal call under way has rows of several records.
        """
        while True:
            try:
                return await (self._shared(call, report) if call.shared else self._made(call, report))
            except BudgetExceededError as short:
                wait_s, put_off = put_off_s(short), self._origin.put_off
                if wait_s is None or put_off is None:
                    raise
                report.put_off = True  # this call was not made; the row's next one will be told of
                if not await put_off(wait_s):
                    report.put_off = False
                    raise
                report.put_off = False

    async def _shared(self, call: _Call, report: Report) -> Generation:
        """The call, or an equal one under way; of those who wait to its end the first one tells of it."""
        shared: Shared | None = None
        report.joined = True
        try:
            found, shared = await self._gateway.flights.join(call.name, lambda: self._flown(call))
        except Exception as error:
            shared = error.__dict__.pop("_shared", None)
            raise
        finally:
            if shared is not None and shared.claim():
                report.adopt(shared.report)
                report.joined = False
        return found

    async def _flown(self, call: _Call) -> tuple[Generation, Shared]:
        """The call in its own task, with a report of its own."""
        shared = Shared(self._report("chat", None))
        try:
            return await self._made(call, shared.report), shared
        except asyncio.CancelledError as left:
            shared.report.error = left  # everybody has left: nobody else tells what it took
            self._gateway.report(shared.report)
            raise
        except Exception as error:
            error.__dict__["_shared"] = shared
            raise

    async def _made(self, call: _Call, report: Report) -> Generation:
        gateway, target = self._gateway, call.target
        payment = await paid(gateway, call.request, target, report)
        request = payment.request
        assert isinstance(request, GenerateRequest)  # noqa: S101 - as it was given

        # Neither is a coroutine of its own: each level costs every call in flight.
        def make(place: Place) -> Coroutine[Any, Any, Generation]:
            return place.provider.generate(_for(request, place), gateway.providers.context)

        def run(attempt: Attempt) -> Coroutine[Any, Any, Generation]:
            return attempted(attempt.place, attempt, make)

        try:
            answer = await gateway.carrier.carried(payment.places, target.policy, report, run, _nothing)
        finally:
            payment.settle()
        await call.remember(answer)
        return answer

    # --- streaming --------------------------------------------------------------------------------------

    async def stream(
        self, request: GenerateRequest, target: Target, *, prompt: Prompt | None = None
    ) -> AsyncGenerator[Delta, None]:
        """See `flowcore.llm.calls.Models`; a kept answer comes in one piece."""
        report = self._report("chat", prompt)
        call = _Call(self._gateway, self._origin, request, target, str(next(self._numbers)))
        try:
            answer = await call.kept(report)
            if isinstance(answer, Generation):
                yield _whole(answer)
                return
            pieces = self._pieces(call, report)
            try:
                async for delta in pieces:
                    yield delta
            finally:
                await pieces.aclose()
        except BaseException as error:
            report.error = None if isinstance(error, GeneratorExit) else error
            raise
        finally:
            self._gateway.report(report)

    async def _pieces(self, call: _Call, report: Report) -> AsyncGenerator[Delta, None]:
        """The pieces of a call that is made; the end is given once the answer is kept."""
        gateway, target = self._gateway, call.target
        payment = await paid(gateway, call.request, target, report)
        request = payment.request
        assert isinstance(request, GenerateRequest)  # noqa: S101 - as it was given
        began = asyncio.get_running_loop().time()

        async def run(attempt: Attempt) -> Begun:
            place = attempt.place
            pieces = place.provider.stream(_for(request, place), gateway.providers.context)
            return await begin_stream(place, attempt, pieces)

        ends: list[Delta] = []
        try:
            begun = await gateway.carrier.carried(payment.places, target.policy, report, run, Begun.close)
            report.first_s = asyncio.get_running_loop().time() - began
            try:
                while (delta := await begun.next()) is not None:
                    if ends or delta.finish is not None:
                        ends.append(delta)
                    else:
                        yield delta
            finally:
                await begun.close()
        finally:
            payment.settle()
        if begun.assembly.finish is not None:
            answer = begun.assembly.whole()
            await call.remember(answer)
            await call.journal(answer)
        for delta in ends:
            yield delta

    # --- embedding --------------------------------------------------------------------------------------

    async def embed(self, request: EmbedRequest, target: Target) -> tuple[Vector | Exception, ...]:
        """See `flowcore.llm.calls.Models`."""
        report = self._report("embeddings", None)
        try:
            return await embedded(
                self._gateway, self._origin, request, target, report, str(next(self._numbers))
            )
        except BaseException as error:
            report.error = error
            raise
        finally:
            self._gateway.report(report)

    def count_tokens(self, request: GenerateRequest | EmbedRequest, target: Target) -> int:
        """Tokens the prompt will count, as the first endpoint's provider estimates it."""
        endpoint: Endpoint = target.endpoints[0]
        return self._gateway.providers.of(endpoint).count_tokens(request)

    def _report(self, operation: Operation, prompt: Prompt | None) -> Report:
        began = asyncio.get_running_loop().time()
        return Report(operation, self._origin, prompt, began=began, began_at=self._gateway.wall_s())


class Shared:
    """A call several wait for, and whether one of them tells of it."""

    __slots__ = ("_claimed", "report")

    def __init__(self, report: Report) -> None:
        self.report = report
        self._claimed = False

    def claim(self) -> bool:
        """Whether nobody has claimed it before."""
        first, self._claimed = not self._claimed, True
        return first


class _Call:
    """What a call is known by: its content hash, its name in the journal."""

    __slots__ = ("_cached", "_entry", "_gateway", "_naming", "name", "request", "shared", "target")

    def __init__(
        self, gateway: Gateway, origin: Origin, request: GenerateRequest, target: Target, number: str
    ) -> None:
        policy: CallPolicy = target.policy
        self._gateway = gateway
        self.request = request
        self.target = target
        cache = policy.cache
        self._cached = cache is not None and (request.is_deterministic or cache.also_random)
        self.shared = policy.single_flight or self._cached
        self._naming = origin.naming() if policy.journal else None
        self.name = gateway.name_of(request, target) if self.shared or self._naming is not None else ""
        self._entry: CallName | None = None
        if self._naming is not None:
            self._entry = self._naming.of(number, self.name)

    async def kept(self, report: Report) -> Answer | None:
        """The answer, where it need not be paid."""
        if self._cached:
            answer = await self._gateway.recall(self.name, self.target.policy)
            if answer is not None:
                report.cached = True
                self._gateway.spared(self.request, self.target, report)
                return answer
        if self._entry is None or (journal := self._gateway.journal) is None:
            return None
        answer = await journal.find(self._entry, self.name, self._gateway.wall_s())
        if answer is not None:
            report.journaled = True
            self._gateway.spared(self.request, self.target, report)
            self._note()
        return answer

    def _note(self) -> None:
        if self._naming is not None:
            self._naming.noted()

    async def remember(self, answer: Answer) -> None:
        """Keep it for equal requests."""
        if self._cached:
            await self._gateway.remember(self.name, self.target.policy, answer)

    async def journal(self, answer: Answer) -> None:
        """Keep it for this record."""
        if self._entry is not None and (journal := self._gateway.journal) is not None:
            await journal.keep(self._entry, self.name, answer, self._gateway.wall_s())
            self._note()


def _for(request: GenerateRequest, place: Place) -> GenerateRequest:
    """The request as this place is asked."""
    if request.model == place.model:
        return request
    return msgspec.structs.replace(request, model=place.model)


def _whole(answer: Generation) -> Delta:
    """A kept answer as the one piece of its stream."""
    from flowcore.llm.answers import ToolCallDelta

    calls = tuple(
        ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
        for index, call in enumerate(answer.tool_calls)
    )
    return Delta(
        text=answer.text,
        reasoning=answer.reasoning,
        tool_calls=calls,
        finish=answer.finish,
        usage=answer.usage,
        model=answer.model,
        id=answer.id,
    )


async def _nothing(_: Any) -> None:
    """A whole answer that nobody takes holds nothing."""
