"""The turns of an agent: the model asks for tools, gets what they gave, and answers.

Owns: `AgentLimits`, `Turns`, the errors a tool may end in, told to the model or raised.
Does not own: tools (the runtime binds them), calls of models (the gateway), prompts.

Always holds: every tool call of an answer gets exactly one result, in order; arguments are checked against
the tool's schema before it is used; no limit is passed by more than the turn under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from flowcore.answers import value_faults
from flowcore.context import NodeContext
from flowcore.errors import LimitExceededError, describe_error
from flowcore.findings import did_you_mean, shown
from flowcore.llm.answers import Generation, Usage
from flowcore.llm.errors import ToolArgumentsError, UnknownToolError
from flowcore.llm.messages import Message, Tool, ToolCall
from flowcore.llm.tools import BoundTool
from flowcore.values import Json

_RESULT_CHARACTERS: Final = 100_000
"""Of one tool result a model is told; the rest is cut, and that is said."""

Ask = Callable[[tuple[Message, ...], tuple[Tool, ...]], Awaitable[Generation]]


class AgentLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far an agent may go for one row; beyond it the row fails with LimitExceededError."""

    turns: Annotated[int, Meta(ge=1, le=1_000, description="calls of the model")] = 10
    tool_calls: Annotated[int, Meta(ge=0, description="uses of tools")] = 50
    tokens: Annotated[int | None, Meta(ge=1, description="of all turns, prompts and answers")] = None
    usd: Annotated[
        float | None, Meta(gt=0, description="by the price list; unknown prices count nothing")
    ] = None
    time: Annotated[timedelta | None, Meta(description="from the first turn on")] = None


class Turns:
    """What an agent does for one row.

    Args:
        ask: calls the model.
        tools: it may use.
        limits: of all turns together.
        ctx: of the row.
        at_once: tools of one answer are used at once, not one after the other.
        tell: a tool's error is told to the model; False: it fails the row.
    """

    def __init__(
        self,
        ask: Ask,
        tools: Sequence[BoundTool],
        limits: AgentLimits,
        ctx: NodeContext,
        *,
        at_once: bool,
        tell: bool,
    ) -> None:
        self._ask = ask
        self._tools: Final = {bound.tool.name: bound for bound in tools}
        self._limits = limits
        self._ctx = ctx
        self._at_once = at_once
        self._tell = tell
        self.messages: tuple[Message, ...] = ()
        """The conversation so far."""
        self.turns = 0
        self.used: list[str] = []
        """Names of the tools used, in order."""
        self.usage = Usage()
        self.cost_usd: float | None = 0.0
        """None: of some turn it is not known."""

    async def run(self, messages: tuple[Message, ...]) -> Generation:
        """Until the model answers without asking for a tool.

        Raises:
            LimitExceededError: a limit was reached first; attribute `limit` says which.
            UnknownToolError, ToolArgumentsError: with `tell` off.
            What a tool raised: with `tell` off.
        """
        self.messages = messages
        tools = tuple(bound.tool for bound in self._tools.values())
        within = self._limits.time
        timer = asyncio.timeout(None if within is None else within.total_seconds())
        try:
            async with timer:
                while True:
                    self._check()
                    answer = await self._ask(self.messages, tools)
                    self._count(answer)
                    self.messages = (*self.messages, answer.message())
                    if not answer.tool_calls:
                        return answer
                    self.messages = (*self.messages, *await self._use(answer.tool_calls))
        except TimeoutError as late:
            if not timer.expired():
                raise
            raise self._reached("time", str(within)) from late

    def _check(self) -> None:
        limits = self._limits
        if self.turns >= limits.turns:
            raise self._reached("turns", str(limits.turns))
        if limits.tokens is not None and self.usage.total_tokens >= limits.tokens:
            raise self._reached("tokens", f"{limits.tokens:,}")
        if limits.usd is not None and (self.cost_usd or 0.0) >= limits.usd:
            raise self._reached("usd", f"{limits.usd:g}")

    def _reached(self, limit: str, bound: str) -> LimitExceededError:
        spent = f"{self.turns} turns, {len(self.used)} tool calls, {self.usage.total_tokens:,} tokens"
        return LimitExceededError(
            f"agent {self._ctx.node_id!r} reached its limit of {limit} ({bound}) without an answer, after "
            f"{spent}; raise limits.{limit}, or make the task smaller",
            limit=limit,
            turns=self.turns,
            tool_calls=len(self.used),
            tokens=self.usage.total_tokens,
        )

    def _count(self, answer: Generation) -> None:
        self.turns += 1
        if answer.usage is not None:
            self.usage = self.usage.plus(answer.usage)
        if self.cost_usd is not None:
            self.cost_usd = None if answer.cost_usd is None else self.cost_usd + answer.cost_usd

    async def _use(self, calls: Sequence[ToolCall]) -> list[Message]:
        if len(self.used) + len(calls) > self._limits.tool_calls:
            raise self._reached("tool_calls", str(self._limits.tool_calls))
        self.used += [call.name for call in calls]
        if not self._at_once or len(calls) == 1:
            return [await self._result(call) for call in calls]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._result(call)) for call in calls]
        except ExceptionGroup as failed:  # only where errors are not told: the first one is the row's
            raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]

    async def _result(self, call: ToolCall) -> Message:
        """What one call gave, for the model."""
        self._ctx.emit("data", {"tool": call.name, "call": call.id})
        try:
            text, failed = _told(await self._call(call)), False
        except Exception as error:
            if not self._tell:
                raise
            told = describe_error(error)
            text, failed = f"{told['kind']}: {told['message']}", True
        if len(text) > _RESULT_CHARACTERS:
            text = f"{text[:_RESULT_CHARACTERS]}\n... cut: it has {len(text):,} characters"
        return Message(role="tool", content=text, tool_call_id=call.id, is_error=failed)

    async def _call(self, call: ToolCall) -> Any:
        bound = self._tools.get(call.name)
        if bound is None:
            hint = did_you_mean(call.name, self._tools) or f"there are {', '.join(self._tools) or 'none'}"
            raise UnknownToolError(
                f"there is no tool {shown(call.name)}; {hint}", tool=call.name, known=list(self._tools)
            )
        return await bound.use(_arguments(call, bound.tool.parameters))


def _arguments(call: ToolCall, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, checked."""
    try:
        given = Json((call.arguments.strip() or "{}").encode()).parse()
    except ValueError as fault:
        problems = [f"not JSON: {fault}"]
    else:
        problems = [f"{path} {message}" for path, message in value_faults(given, schema, "arguments")]
        if not problems:
            arguments: dict[str, Any] = given  # pyright: ignore[reportAssignmentType] - the schema says object
            return arguments
    raise ToolArgumentsError(
        f"arguments of tool {call.name!r}: {'; '.join(problems)}", tool=call.name, problems=problems
    )


def _told(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes, which are not shown"
    return Json.of(value).raw.decode()


Capability = Literal["tools", "parallel_tools", "messages"]
