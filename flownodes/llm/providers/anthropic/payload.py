"""Anthropic's messages: what is asked.

Owns: `messages_payload`. Does not own: what is answered (answers), sending it (provider).

Pure. Always holds: an answer of a certain form is asked for by a tool of that form, which the model must
call.
Source: the API reference of Anthropic, "Messages", "Tool use" and "Prompt caching".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowcore.llm.messages import ImagePart, Message, TextPart
from flowcore.llm.requests import GenerateRequest
from flownodes.llm.wire.content import base64_of

_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_KEPT: Final = {"type": "ephemeral"}


def messages_payload(request: GenerateRequest, *, max_tokens: int, stream: bool) -> dict[str, Any]:
    """The body of a request for an answer.

    Args:
        request: what is asked; `seed` is for the caller to refuse.
        max_tokens: where the request sets none: this API must be told.
        stream: whether the answer is to come in pieces.

    Raises:
        ValueError: the arguments of a tool call in the conversation are no JSON object.
    """
    system = [
        {"type": "text", "text": message.text}
        for message in request.messages
        if message.role == "system" and message.text
    ]
    tools = _tools(request)
    turns = _turns([message for message in request.messages if message.role != "system"])
    if request.cache_prompt:
        _keep(system, tools, turns)
    fields: dict[str, Any] = {
        "system": system or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop_sequences": list(request.stop) or None,
        "tools": tools or None,
        "tool_choice": _choice(request),
        "stream": stream or None,
    }
    payload: dict[str, Any] = {
        "model": request.model,
        "max_tokens": max_tokens if request.max_tokens is None else request.max_tokens,
        "messages": turns,
    }
    payload |= {name: value for name, value in fields.items() if value is not None}
    return payload | dict(request.extra)


def _tools(request: GenerateRequest) -> list[dict[str, Any]]:
    tools = [
        {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
        for tool in request.tools
    ]
    if request.output is not None:
        output = {
            "name": request.output.name,
            "description": "Give the answer by calling this.",
            "input_schema": request.output.schema,
        }
        tools.append(output)
    return tools


def _choice(request: GenerateRequest) -> dict[str, Any] | None:
    if request.output is not None:
        if request.tools:
            return {"type": "any"}
        return {"type": "tool", "name": request.output.name, "disable_parallel_tool_use": True}
    if not request.tools:
        return None
    choice = request.tool_choice
    if choice is None and request.parallel_tools is None:
        return None
    kind = _CHOICES.get(choice or "auto")
    said: dict[str, Any] = {"type": kind} if kind is not None else {"type": "tool", "name": choice}
    if request.parallel_tools is False and kind != "none":
        said["disable_parallel_tool_use"] = True
    return said


def _turns(messages: list[Message]) -> list[dict[str, Any]]:
    """Turns of user and assistant in alternation: what one of them says in several messages is one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        content = _content(message)
        if not content:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(content)
        else:
            turns.append({"role": role, "content": content})
    return turns


def _content(message: Message) -> list[dict[str, Any]]:
    parts = (TextPart(message.content),) if isinstance(message.content, str) else message.content
    blocks = [_part(part) for part in parts if not isinstance(part, TextPart) or part.text]
    if message.role == "tool":
        result: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": message.tool_call_id or "",
            "content": blocks,
        }
        return [{**result, "is_error": True} if message.is_error else result]
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)}
        for call in message.tool_calls
    ]


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.url is not None:
        source: dict[str, Any] = {"type": "url", "url": part.url}
    else:
        data = base64_of(part.data or b"")
        source = {"type": "base64", "media_type": part.media_type, "data": data}
    return {"type": "image", "source": source}


def _arguments(text: str) -> Any:
    found = msgspec.json.decode(text or "{}")
    if not isinstance(found, Mapping):
        raise ValueError("the arguments of a tool call in the conversation are no JSON object")  # noqa: TRY004 - of the text
    return found  # pyright: ignore[reportUnknownVariableType] - parsed JSON


def _keep(*lists: list[dict[str, Any]]) -> None:
    """Mark the last block of system prompt, tools and conversation: the provider keeps what is before it."""
    for blocks in lists:
        if not blocks:
            continue
        last = blocks[-1]
        if "role" in last:
            last = last["content"][-1]
        last["cache_control"] = _KEPT
