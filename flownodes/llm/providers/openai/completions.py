"""OpenAI's chat completions: what is answered, whole or in pieces.

Owns: the structs of the answer, `generation_of`, `Pieces`.
Does not own: what is asked (chat), the exchange (provider).

Pure. Always holds: fields nobody needs are not looked at; those that are needed must be there and of the
right kind; a finish reason nobody knows is `other`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flowcore.llm.answers import Delta, Finish, Generation, ToolCallDelta, Usage
from flowcore.llm.messages import ToolCall
from flownodes.llm.wire.content import arguments_text, counted

_FINISHES: Final[dict[str, Finish]] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}
FAILED: Final = "error"
"""The finish reason of services that pass on what another one failed with."""


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class UsageWire(msgspec.Struct, frozen=True):
    """What was counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name of cached tokens."""

    def usage(self) -> Usage:
        """In our words."""
        prompt, answer = self.prompt_tokens_details, self.completion_tokens_details
        cached = None if prompt is None else prompt.cached_tokens
        return Usage(
            input_tokens=counted(self.prompt_tokens),
            output_tokens=counted(self.completion_tokens),
            cached_tokens=counted(cached or self.prompt_cache_hit_tokens),
            reasoning_tokens=0 if answer is None else counted(answer.reasoning_tokens),
        )


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct, frozen=True):
    function: _Function
    id: str | None = None
    index: int | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None
    thinking: list[_Part] | None = None


class _Said(msgspec.Struct, frozen=True):
    """A message, or a piece of one."""

    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None

    def text(self) -> str:
        """What is said."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""

    def thought(self) -> str:
        """What it says it thought."""
        if isinstance(self.content, list):
            pieces = [piece for part in self.content for piece in part.thinking or ()]
            return "".join(piece.text or "" for piece in pieces)
        return self.reasoning_content or self.reasoning or ""


class _Choice(msgspec.Struct, frozen=True):
    message: _Said
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer."""

    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    usage: UsageWire | None = None
    error: Any = None


class _Piece(msgspec.Struct, frozen=True):
    delta: _Said | None = None
    finish_reason: str | None = None
    index: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """A piece of an answer."""

    choices: list[_Piece] | None = None
    """Of several answers at once only the first one is read; some services send null beside the usage."""
    id: str | None = None
    model: str | None = None
    usage: UsageWire | None = None
    error: Any = None

    @property
    def first(self) -> _Piece | None:
        """The piece of the first answer; None: there is none in it."""
        return next((piece for piece in self.choices or () if piece.index == 0), None)


def finish_of(reason: str | None, *, called: bool, refused: bool) -> Finish:
    """Why the answer ended.

    Args:
        reason: the service's word.
        called: it asks for tools; where one was forced some services say `stop`.
        refused: it said why it will not answer.
    """
    finish = _FINISHES.get(reason or "", "other")
    if refused and finish in ("stop", "other"):
        return "refusal"
    return "tool_calls" if called and finish in ("stop", "other") else finish


def generation_of(completion: Completion) -> Generation:
    """In our words; of several choices the first one.

    Raises:
        ValueError: there is no choice, or a call has no name.
    """
    if not completion.choices:
        raise ValueError("it has no choices")
    choice = completion.choices[0]
    said = choice.message
    calls = tuple(_call(index, call) for index, call in enumerate(said.tool_calls or ()))
    return Generation(
        text=said.text() or said.refusal or "",
        reasoning=said.thought(),
        tool_calls=calls,
        finish=finish_of(choice.finish_reason, called=bool(calls), refused=bool(said.refusal)),
        usage=None if completion.usage is None else completion.usage.usage(),
        model=completion.model or "",
        id=completion.id or "",
    )


def _call(index: int, call: _Call) -> ToolCall:
    if not call.function.name:
        raise ValueError("a tool call has no name")
    arguments = arguments_text(call.function.arguments)
    return ToolCall(id=call.id or f"call_{index}", name=call.function.name, arguments=arguments)


class Pieces:
    """Pieces of one answer, one after the other, in our words."""

    def __init__(self) -> None:
        self._is_first = True
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._refused = False
        self._calls = 0
        self._bare: set[int] = set()
        """Calls without arguments so far."""
        self._unnamed: set[int] = set()
        """Calls without a name so far."""

    @property
    def reason(self) -> str | None:
        """Why it ended, the service's word; None: it has not ended."""
        return self._reason

    def add(self, chunk: Chunk) -> Delta | None:
        """The next one; None: it adds nothing yet."""
        if chunk.usage is not None:
            self._usage = chunk.usage.usage()
        piece = chunk.first
        said = _Said() if piece is None or piece.delta is None else piece.delta
        if piece is not None and piece.finish_reason:
            self._reason = piece.finish_reason
        self._refused = self._refused or bool(said.refusal)
        text, thought = said.text() or said.refusal or "", said.thought()
        calls = tuple(self._delta(call) for call in said.tool_calls or ())
        is_first = self._is_first and bool(chunk.model or chunk.id)
        if not (text or thought or calls or is_first):
            return None
        self._is_first = self._is_first and not is_first
        return Delta(
            text=text,
            reasoning=thought,
            tool_calls=calls,
            model=(chunk.model or "") if is_first else "",
            id=(chunk.id or "") if is_first else "",
        )

    def last(self) -> Delta:
        """What the end says: `finish`, `usage`.

        Raises:
            ValueError: a call has no name.
        """
        if self._unnamed:
            raise ValueError("a tool call has no name")
        finish = finish_of(self._reason, called=self._calls > 0, refused=self._refused)
        bare = tuple(ToolCallDelta(index=index, arguments="{}") for index in sorted(self._bare))
        return Delta(tool_calls=bare, finish=finish, usage=self._usage)

    def _delta(self, call: _Call) -> ToolCallDelta:
        # A service that leaves out the index sends one call after the other; a name begins one.
        begins = bool(call.function.name) or not self._calls
        index = call.index if call.index is not None else self._calls - (0 if begins else 1)
        is_new = index >= self._calls
        self._calls = max(self._calls, index + 1)
        given = call.function.arguments
        arguments = given if isinstance(given, str) else arguments_text(given) if given else ""
        if is_new:
            self._bare.add(index)
            self._unnamed.add(index)
        if arguments:
            self._bare.discard(index)
        if call.function.name:
            self._unnamed.discard(index)
        return ToolCallDelta(
            index=index,
            id=call.id or (f"call_{index}" if is_new else ""),
            name=call.function.name or "",
            arguments=arguments,
        )
