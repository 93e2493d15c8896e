"""OpenAI's chat completions: what is asked.

Owns: `chat_payload`. Does not own: what is answered (completions), sending it (provider).

Pure. Source: the API reference of OpenAI, "Chat completions".
"""

from __future__ import annotations

from typing import Any, Final

from flowcore.llm.messages import Message, OutputSchema, TextPart, Tool
from flowcore.llm.requests import GenerateRequest
from flowcore.values import Json
from flownodes.llm.providers.openai.traits import Traits
from flownodes.llm.wire.content import data_url

_CHOICES: Final = frozenset({"auto", "none", "required"})


def chat_payload(request: GenerateRequest, traits: Traits, *, stream: bool) -> dict[str, Any]:
    """The body of a request for an answer."""
    messages = [_message(message) for message in request.messages]
    payload: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.output is not None and not traits.json_schema:
        payload["messages"] = [{"role": "system", "content": _instruction(request.output)}, *messages]
    fields: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request),
        "parallel_tool_calls": request.parallel_tools if request.tools else None,
        "response_format": None if request.output is None else _format(request.output, traits),
    }
    payload |= {traits.renamed.get(name, name): value for name, value in fields.items() if value is not None}
    if stream:
        payload["stream"] = True
        if traits.usage_on_request:
            payload["stream_options"] = {"include_usage": True}
    return payload | dict(request.extra)


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        text = f"Error: {message.text}" if message.is_error else message.text
        return {"role": "tool", "tool_call_id": message.tool_call_id or "", "content": text}
    written: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        written["content"] = written["content"] or None
        written["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return written


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    if all(isinstance(part, TextPart) for part in message.content):
        return message.text
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in message.content
    ]


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _choice(request: GenerateRequest) -> Any:
    choice = request.tool_choice
    if choice is None or not request.tools or choice in _CHOICES:
        return choice if request.tools else None
    return {"type": "function", "function": {"name": choice}}


def _format(output: OutputSchema, traits: Traits) -> dict[str, Any]:
    if not traits.json_schema:
        return {"type": "json_object"}
    schema = {"name": output.name, "schema": output.schema, "strict": output.strict}
    return {"type": "json_schema", "json_schema": schema}


def _instruction(output: OutputSchema) -> str:
    schema = Json.of(output.schema).raw.decode()
    return f"Answer with one JSON object and nothing else. It must keep to this JSON Schema: {schema}"
