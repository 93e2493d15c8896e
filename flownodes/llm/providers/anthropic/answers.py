"""Anthropic's messages: what is answered, whole or in pieces.

Owns: the structs of the answer, `generation_of`, `Pieces`.
Does not own: what is asked (payload), the exchange (provider).

Pure. Always holds: what the model gives to the tool that stands for the form of the answer is the answer's
text; a stop reason nobody knows is `other`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flowcore.llm.answers import Delta, Finish, Generation, ToolCallDelta, Usage
from flowcore.llm.messages import ToolCall
from flownodes.llm.wire.content import counted

_FINISHES: Final[dict[str, Finish]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class UsageWire(msgspec.Struct, frozen=True):
    """What was counted; in a stream in parts."""

    input_tokens: int | None = None
    """Without those from and into the cache."""
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    def over(self, earlier: UsageWire | None) -> UsageWire:
        """This, and what only an earlier part said."""
        if earlier is None:
            return self
        names = UsageWire.__struct_fields__
        return UsageWire(
            **{
                name: getattr(earlier, name) if getattr(self, name) is None else getattr(self, name)
                for name in names
            }
        )

    def usage(self) -> Usage:
        """In our words."""
        written, read = counted(self.cache_creation_input_tokens), counted(self.cache_read_input_tokens)
        return Usage(
            input_tokens=counted(self.input_tokens) + written + read,
            output_tokens=counted(self.output_tokens),
            cached_tokens=read,
            cache_write_tokens=written,
        )


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    content: list[_Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: UsageWire | None = None


class _Begun(msgspec.Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    usage: UsageWire | None = None


class _Change(msgspec.Struct, frozen=True):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class StreamEvent(msgspec.Struct, frozen=True):
    """One event of a stream."""

    type: str
    index: int | None = None
    message: _Begun | None = None
    content_block: _Block | None = None
    delta: _Change | None = None
    usage: UsageWire | None = None
    error: Any = None


def generation_of(answer: Answer, form: str | None) -> Generation:
    """In our words.

    Args:
        answer: as it came.
        form: the tool that stands for the form of the answer; None: there is none.

    Raises:
        ValueError: it is empty, or a call has no name.
    """
    if not answer.content and answer.stop_reason is None:
        raise ValueError("it has no content and no stop reason")
    text = "".join(block.text or "" for block in answer.content if block.type == "text")
    used = [block for block in answer.content if block.type == "tool_use"]
    given = [block for block in used if form is not None and block.name == form]
    calls = tuple(_call(block) for block in used if block not in given)
    finish = _FINISHES.get(answer.stop_reason or "", "other")
    if given:
        text = msgspec.json.encode(given[0].input).decode()
    return Generation(
        text=text,
        reasoning="".join(block.thinking or "" for block in answer.content if block.type == "thinking"),
        tool_calls=calls,
        finish=_formed(finish, formed=bool(given), called=bool(calls)),
        usage=None if answer.usage is None else answer.usage.usage(),
        model=answer.model or "",
        id=answer.id or "",
    )


def _call(block: _Block) -> ToolCall:
    if not block.name:
        raise ValueError("a tool call has no name")
    arguments = msgspec.json.encode({} if block.input is None else block.input).decode()
    return ToolCall(id=block.id or block.name, name=block.name, arguments=arguments)


def _formed(finish: Finish, *, formed: bool, called: bool) -> Finish:
    """An answer given by the tool that stands for its form ends like one that is said."""
    return "stop" if finish == "tool_calls" and formed and not called else finish


class Pieces:
    """Events of one answer, one after the other, in our words.

    Args:
        form: as of `generation_of`.
    """

    def __init__(self, form: str | None) -> None:
        self._form: Final = form
        self._places: dict[int, int | None] = {}
        """Of each block that is a call: which call; None: it gives the form of the answer."""
        self._given = False
        self._said: list[str] = []
        """Text beside the form, which counts only where the form is not given."""
        self._calls = 0
        self._bare: set[int] = set()
        """Calls without arguments so far."""
        self._reason: str | None = None
        self._usage: UsageWire | None = None
        self.is_over = False

    def add(self, event: StreamEvent) -> Delta | None:
        """The next one; None: it adds nothing yet."""
        begun = event.message
        for told in (event.usage, None if begun is None else begun.usage):
            if told is not None:
                self._usage = told.over(self._usage)
        match event.type:
            case "message_start" if begun is not None:
                return Delta(id=begun.id or "", model=begun.model or "")
            case "content_block_start" if event.content_block is not None:
                return self._block(event.index or 0, event.content_block)
            case "content_block_delta" if event.delta is not None:
                return self._change(event.index or 0, event.delta)
            case "content_block_stop":
                return self._ended(event.index or 0)
            case "message_delta" if event.delta is not None:
                self._reason = event.delta.stop_reason or self._reason
            case "message_stop":
                self.is_over = self._reason is not None
            case _:
                pass
        return None

    def last(self) -> Delta:
        """What the end says: `finish`, `usage`."""
        finish = _FINISHES.get(self._reason or "", "other")
        usage = None if self._usage is None else self._usage.usage()
        text = "" if self._given else "".join(self._said)
        return Delta(
            text=text, finish=_formed(finish, formed=self._given, called=self._calls > 0), usage=usage
        )

    def _block(self, place: int, block: _Block) -> Delta | None:
        if block.type != "tool_use":
            return self._spoken(block.text, block.thinking)
        if self._form is not None and block.name == self._form:
            self._places[place] = -1 if self._given else None
            self._given = True
            return None
        index = self._places[place] = self._calls
        self._calls += 1
        self._bare.add(index)
        name = block.name or ""
        return Delta(tool_calls=(ToolCallDelta(index=index, id=block.id or name, name=name),))

    def _change(self, place: int, change: _Change) -> Delta | None:
        if change.partial_json is None:
            return self._spoken(change.text, change.thinking)
        if not change.partial_json:
            return None
        index = self._places.get(place)
        if index is None:
            return Delta(text=change.partial_json)
        if index < 0:  # the form a second time: the first one is the answer
            return None
        self._bare.discard(index)
        return Delta(tool_calls=(ToolCallDelta(index=index, arguments=change.partial_json),))

    def _ended(self, place: int) -> Delta | None:
        index = self._places.get(place)
        if index is None or index not in self._bare:
            return None
        self._bare.discard(index)
        return Delta(tool_calls=(ToolCallDelta(index=index, arguments="{}"),))

    def _spoken(self, text: str | None, thought: str | None) -> Delta | None:
        if text and self._form is not None:
            self._said.append(text)
            text = None
        return Delta(text=text or "", reasoning=thought or "") if text or thought else None
