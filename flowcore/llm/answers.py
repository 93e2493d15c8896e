"""What a provider gives: answers, their pieces while they stream, vectors, and what it said of its limits.

Owns: `Generation`, `Delta`, `Embeddings`, `Usage`, `RateLimits`, and how pieces make a whole (`Assembly`).
Does not own: prices, budgets and telemetry (the runtime).

Always holds: `usage` is what the provider counted, None where it said nothing: never an estimate.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from flowcore.llm.messages import Message, ToolCall
from flowcore.vectors import Vector

Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "other"]


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens the provider counted."""

    input_tokens: int = 0
    """All of the prompt, those from and into its cache included."""
    output_tokens: int = 0
    """All of the answer, reasoning included."""
    cached_tokens: int = 0
    """Of `input_tokens`: read from the provider's cache."""
    cache_write_tokens: int = 0
    """Of `input_tokens`: written to it."""
    reasoning_tokens: int = 0
    """Of `output_tokens`: not shown."""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.__struct_fields__})


class RateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of an answer say is left of its limits; None: not said."""

    requests: int | None = None
    """Per minute, or whatever the provider's period is."""
    requests_left: int | None = None
    requests_reset_s: float | None = None
    """Until all of them are back."""
    tokens: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole answer."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    usage: Usage | None = None
    model: str = ""
    """As the provider names what answered; it may be more exact than what was asked for."""
    id: str = ""
    """The provider's name of this answer."""
    limits: RateLimits | None = None
    reasoning: str = ""
    """What the model says it thought, where the provider shows it."""
    cost_usd: float | None = None
    """By the price list of the runtime, which fills it in; None: usage or price are not known."""

    def message(self) -> Message:
        """The answer as the next turn of its conversation."""
        return Message(role="assistant", content=self.text, tool_calls=self.tool_calls)


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call."""

    index: int
    """Which of the answer's calls."""
    id: str = ""
    name: str = ""
    arguments: str = ""
    """To be appended."""


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of an answer while it streams; the last one has `finish`."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    """So far; the last one said counts."""
    model: str = ""
    id: str = ""
    limits: RateLimits | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A vector per text, in the order of the request."""

    vectors: tuple[Vector, ...]
    usage: Usage | None = None
    model: str = ""
    limits: RateLimits | None = None


class Assembly:
    """Puts the pieces of a streamed answer together; `whole()` may be asked at any time."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._last = Delta()
        self.finish: Finish | None = None
        """None: the answer has not ended."""
        self.usage: Usage | None = None

    def add(self, delta: Delta) -> None:
        """The next piece."""
        if delta.text:
            self._text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        for piece in delta.tool_calls:
            call = self._calls.setdefault(piece.index, ["", ""])
            call[0], call[1] = call[0] or piece.id, call[1] or piece.name
            self._arguments.setdefault(piece.index, []).append(piece.arguments)
        self.finish = delta.finish or self.finish
        self.usage = delta.usage or self.usage
        self._last = Delta(
            model=delta.model or self._last.model,
            id=delta.id or self._last.id,
            limits=delta.limits or self._last.limits,
        )

    def whole(self) -> Generation:
        """What has come so far; `finish` is `other` until the end was said."""
        calls = tuple(
            ToolCall(id=call[0], name=call[1], arguments="".join(self._arguments[index]))
            for index, call in sorted(self._calls.items())
        )
        return Generation(
            text="".join(self._text),
            tool_calls=calls,
            finish=self.finish or "other",
            usage=self.usage,
            model=self._last.model,
            id=self._last.id,
            limits=self._last.limits,
            reasoning="".join(self._reasoning),
        )
