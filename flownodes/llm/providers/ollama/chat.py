"""Ollama's chat: what is asked and what is answered.

Owns: `chat_payload`, the structs of the answer, `Pieces`.
Does not own: the exchange (provider).

Pure. Always holds: calls of tools, which have no name of their own here, are called `call_N`, counted
through the conversation.
Source: the API documentation of Ollama, "Generate a chat completion".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flowcore.llm.answers import Delta, Finish, ToolCallDelta, Usage
from flowcore.llm.messages import ImagePart, Message
from flowcore.llm.requests import GenerateRequest
from flownodes.llm.wire.content import arguments_text, base64_of, counted

_FINISHES: Final[dict[str, Finish]] = {"stop": "stop", "length": "length"}


def chat_payload(
    request: GenerateRequest, own: dict[str, Any], beside: dict[str, Any], *, stream: bool
) -> dict[str, Any]:
    """The body of a request for an answer.

    Args:
        request: what is asked; what this API lacks is for the caller to refuse.
        own: options of the model, under `options`.
        beside: fields of the request.
        stream: whether the answer is to come in pieces.

    Raises:
        ValueError: the arguments of a tool call in the conversation are no JSON.
    """
    fields: dict[str, Any] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "num_predict": request.max_tokens,
    }
    options = own | {name: value for name, value in fields.items() if value is not None}
    payload: dict[str, Any] = {
        "model": request.model,
        "messages": [
            _message(message, request.messages[:place]) for place, message in enumerate(request.messages)
        ],
        "stream": stream,
    } | beside
    if request.tools and request.tool_choice != "none":
        payload["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in request.tools
        ]
    if request.output is not None:
        payload["format"] = request.output.schema
    extra = dict(request.extra)
    options |= extra.pop("options", {})
    if options:
        payload["options"] = options
    return payload | extra


def _message(message: Message, before: Sequence[Message]) -> dict[str, Any]:
    text = f"Error: {message.text}" if message.role == "tool" and message.is_error else message.text
    written: dict[str, Any] = {"role": message.role, "content": text}
    if not isinstance(message.content, str):
        images = [base64_of(part.data or b"") for part in message.content if isinstance(part, ImagePart)]
        if images:
            written["images"] = images
    if message.role == "tool":
        written["tool_name"] = _tool_of(message.tool_call_id, before)
    if message.tool_calls:
        written["tool_calls"] = [
            {"function": {"name": call.name, "arguments": msgspec.json.decode(call.arguments or "{}")}}
            for call in message.tool_calls
        ]
    return written


def _tool_of(call_id: str | None, before: Sequence[Message]) -> str:
    for message in reversed(before):
        for call in message.tool_calls:
            if call.id == call_id:
                return call.name
    return call_id or ""


def calls_before(request: GenerateRequest) -> int:
    """How many calls of tools the conversation has."""
    return sum(len(message.tool_calls) for message in request.messages)


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any] | str | None = None


class _Call(msgspec.Struct, frozen=True):
    function: _Function


class _Said(msgspec.Struct, frozen=True):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class Answer(msgspec.Struct, frozen=True):
    """An answer, or a piece of one."""

    message: _Said
    done: bool
    model: str | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None

    def usage(self) -> Usage | None:
        """In our words."""
        if self.prompt_eval_count is None and self.eval_count is None:
            return None
        return Usage(input_tokens=counted(self.prompt_eval_count), output_tokens=counted(self.eval_count))


class Pieces:
    """Pieces of one answer, one after the other, in our words.

    Args:
        first_call: the number of its first call.
    """

    def __init__(self, first_call: int) -> None:
        self._first_call: Final = first_call
        self._calls = 0
        self._is_first = True
        self.is_over = False

    def add(self, answer: Answer) -> Delta | None:
        """The next one; None: it adds nothing."""
        said = answer.message
        calls = tuple(self._call(call) for call in said.tool_calls or ())
        self.is_over = answer.done
        if not (said.content or said.thinking or calls or answer.done or self._is_first):
            return None
        is_first, self._is_first = self._is_first, False
        return Delta(
            text=said.content or "",
            reasoning=said.thinking or "",
            tool_calls=calls,
            finish=self._finish(answer.done_reason) if answer.done else None,
            usage=answer.usage() if answer.done else None,
            model=(answer.model or "") if is_first else "",
        )

    def _finish(self, reason: str | None) -> Finish:
        finish = _FINISHES.get(reason or "stop", "other")
        return "tool_calls" if finish == "stop" and self._calls else finish

    def _call(self, call: _Call) -> ToolCallDelta:
        index = self._calls
        self._calls += 1
        return ToolCallDelta(
            index=index,
            id=f"call_{self._first_call + index}",
            name=call.function.name,
            arguments=arguments_text(call.function.arguments),
        )
