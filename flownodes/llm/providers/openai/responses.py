"""OpenAI's responses API: what is asked, what is answered, whole or in pieces.

Owns: `responses_payload`, `Response`, `generation_of`, `Pieces`.
Does not own: the exchange (provider), when it is used (option `api: responses`).

Pure. Always holds: nothing is kept at the provider (`store: false`) unless `extra` says so.
Source: the API reference of OpenAI, "Responses" and "Streaming events".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flowcore.llm.answers import Delta, Finish, Generation, ToolCallDelta, Usage
from flowcore.llm.messages import Message, TextPart, ToolCall
from flowcore.llm.requests import GenerateRequest
from flownodes.llm.wire.content import counted, data_url

_CHOICES: Final = frozenset({"auto", "none", "required"})
_INCOMPLETE: Final[dict[str, Finish]] = {"max_output_tokens": "length", "content_filter": "content_filter"}


def responses_payload(request: GenerateRequest, *, stream: bool) -> dict[str, Any]:
    """The body of a request for an answer; `stop` and `seed` are for the caller to refuse."""
    payload: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message)],
        "store": False,
    }
    fields: dict[str, Any] = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,
            }
            for tool in request.tools
        ]
        or None,
        "tool_choice": _choice(request),
        "parallel_tool_calls": request.parallel_tools if request.tools else None,
    }
    payload |= {name: value for name, value in fields.items() if value is not None}
    if request.output is not None:
        output = request.output
        form = {"name": output.name, "schema": output.schema, "strict": output.strict}
        payload["text"] = {"format": {"type": "json_schema", **form}}
    if stream:
        payload["stream"] = True
    return payload | dict(request.extra)


def _items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        text = f"Error: {message.text}" if message.is_error else message.text
        return [{"type": "function_call_output", "call_id": message.tool_call_id or "", "output": text}]
    kind = "output_text" if message.role == "assistant" else "input_text"
    parts = (TextPart(message.content),) if isinstance(message.content, str) else message.content
    content = [
        {"type": kind, "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "input_image", "image_url": data_url(part)}
        for part in parts
        if not isinstance(part, TextPart) or part.text
    ]
    items: list[dict[str, Any]] = [{"role": message.role, "content": content}] if content else []
    items.extend(
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    )
    return items


def _choice(request: GenerateRequest) -> Any:
    choice = request.tool_choice
    if choice is None or not request.tools or choice in _CHOICES:
        return choice if request.tools else None
    return {"type": "function", "name": choice}


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None

    def usage(self) -> Usage:
        asked, answered = self.input_tokens_details, self.output_tokens_details
        return Usage(
            input_tokens=counted(self.input_tokens),
            output_tokens=counted(self.output_tokens),
            cached_tokens=0 if asked is None else counted(asked.cached_tokens),
            reasoning_tokens=0 if answered is None else counted(answered.reasoning_tokens),
        )


class _Content(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct, frozen=True):
    type: str
    content: list[_Content] | None = None
    summary: list[_Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _Incomplete(msgspec.Struct, frozen=True):
    reason: str | None = None


class Response(msgspec.Struct, frozen=True):
    """A whole answer, or the end of one in pieces."""

    output: list[_Item]
    status: str | None = None
    id: str | None = None
    model: str | None = None
    error: dict[str, Any] | None = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None


class StreamEvent(msgspec.Struct, frozen=True):
    """One event of a stream."""

    type: str
    delta: str | None = None
    output_index: int | None = None
    item: _Item | None = None
    response: Response | None = None
    code: str | None = None
    message: str | None = None


def generation_of(response: Response) -> Generation:
    """In our words.

    Raises:
        ValueError: a call has no name.
    """
    contents = [part for item in response.output if item.type == "message" for part in item.content or ()]
    refusal = "".join(part.refusal or "" for part in contents if part.type == "refusal")
    text = "".join(part.text or "" for part in contents if part.type == "output_text")
    summaries = [part for item in response.output if item.type == "reasoning" for part in item.summary or ()]
    calls = tuple(_call(item) for item in response.output if item.type == "function_call")
    return Generation(
        text=text or refusal,
        reasoning="".join(part.text or "" for part in summaries),
        tool_calls=calls,
        finish=_finish(response, called=bool(calls), refused=bool(refusal)),
        usage=None if response.usage is None else response.usage.usage(),
        model=response.model or "",
        id=response.id or "",
    )


def _call(item: _Item) -> ToolCall:
    if not item.name:
        raise ValueError("a tool call has no name")
    return ToolCall(id=item.call_id or item.name, name=item.name, arguments=item.arguments or "{}")


def _finish(response: Response, *, called: bool, refused: bool) -> Finish:
    if response.status == "incomplete":
        details = response.incomplete_details
        return _INCOMPLETE.get((details.reason or "") if details is not None else "", "other")
    if refused:
        return "refusal"
    if called:
        return "tool_calls"
    return "stop" if response.status == "completed" else "other"


class Pieces:
    """Events of one answer, one after the other, in our words."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self._bare: set[int] = set()
        """Calls without arguments so far."""
        self.end: Response | None = None
        """The whole answer, as the last event tells it; None: it has not ended."""

    def add(self, event: StreamEvent) -> Delta | None:
        """The next one; None: it adds nothing."""
        if event.response is not None and event.type in ("response.completed", "response.incomplete"):
            self.end = event.response
            return None
        match event.type:
            case "response.created":
                made = event.response
                return None if made is None else Delta(model=made.model or "", id=made.id or "")
            case "response.output_text.delta" | "response.refusal.delta":
                return Delta(text=event.delta or "")
            case "response.reasoning_summary_text.delta":
                return Delta(reasoning=event.delta or "")
            case "response.output_item.added" | "response.function_call_arguments.delta":
                return self._called(event)
            case _:
                return None

    def last(self, whole: Generation) -> Delta:
        """What the end says: `finish`, `usage`."""
        bare = tuple(ToolCallDelta(index=index, arguments="{}") for index in sorted(self._bare))
        return Delta(tool_calls=bare, finish=whole.finish, usage=whole.usage)

    def _called(self, event: StreamEvent) -> Delta | None:
        place = event.output_index or 0
        if event.item is None:
            index = self._calls.get(place)
            if index is None:
                return None
            if event.delta:
                self._bare.discard(index)
            return Delta(tool_calls=(ToolCallDelta(index=index, arguments=event.delta or ""),))
        if event.item.type != "function_call":
            return None
        index = self._calls.setdefault(place, len(self._calls))
        self._bare.add(index)
        name = event.item.name or ""
        call = ToolCallDelta(index=index, id=event.item.call_id or name, name=name)
        return Delta(tool_calls=(call,))
