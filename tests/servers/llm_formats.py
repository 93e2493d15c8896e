"""Wire formats of providers of models, written from the other side than the providers write them.

Owns: one class per format. Does not own: the server (llm).
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from flowcore.llm.answers import Generation, Usage

_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def data(value: Any) -> bytes:
    return b"data: " + encoded(value) + b"\n\n"


def event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + data(value)


def thirds(text: str) -> list[str]:
    """The text in up to three pieces."""
    step = max(1, -(-len(text) // 3))
    return [text[start : start + step] for start in range(0, len(text), step)]


class OpenAIChat:
    """Chat completions and embeddings."""

    provider = "openai"
    path = "/v1"
    stream_type = "text/event-stream"
    options: Mapping[str, Any] = {}

    def whole(self, answer: Generation) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if answer.tool_calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in answer.tool_calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": _FINISH[answer.finish], "logprobs": None}
        return encoded({**self._head(answer), "choices": [choice], "usage": self._usage(answer.usage)})

    def pieces(self, answer: Generation) -> Sequence[bytes]:
        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return data({**self._head(answer), "choices": [choice], "usage": None})

        pieces = [b": keep-alive\n\n", chunk({"role": "assistant", "content": ""})]
        pieces += [chunk({"content": text}) for text in thirds(answer.text)]
        for index, call in enumerate(answer.tool_calls):
            head = {"index": index, "id": call.id, "type": "function"}
            pieces.append(chunk({"tool_calls": [{**head, "function": {"name": call.name, "arguments": ""}}]}))
            pieces += [
                chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
                for text in thirds(call.arguments)
            ]
        pieces.append(chunk({}, _FINISH[answer.finish]))
        pieces.append(data({**self._head(answer), "choices": [], "usage": self._usage(answer.usage)}))
        return [*pieces, b"data: [DONE]\n\n"]

    def filler(self) -> bytes:
        return data({"choices": [{"index": 0, "delta": {"content": "more"}, "finish_reason": None}]})

    def vectors(self, asked: dict[str, Any], vectors: Sequence[Sequence[float]]) -> bytes:
        def written(vector: Sequence[float]) -> Any:
            if asked.get("encoding_format") != "base64":
                return list(vector)
            return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

        items = [
            {"object": "embedding", "index": index, "embedding": written(vector)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return encoded({"object": "list", "data": items[::-1], "model": asked["model"], "usage": usage})

    @staticmethod
    def _head(answer: Generation) -> dict[str, Any]:
        return {"id": answer.id, "object": "chat.completion", "created": 1, "model": answer.model}

    @staticmethod
    def _usage(usage: Usage | None) -> dict[str, Any] | None:
        if usage is None:
            return None
        return {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }


class AzureChat(OpenAIChat):
    """Chat completions at Azure, which begins a stream by a piece without choices."""

    provider = "azure"
    path = ""

    def pieces(self, answer: Generation) -> Sequence[bytes]:
        begin = data({"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
        return [begin, *super().pieces(answer)]


class HuggingFaceChat(OpenAIChat):
    """Chat at the router; vectors by feature extraction."""

    provider = "huggingface"

    def vectors(self, asked: dict[str, Any], vectors: Sequence[Sequence[float]]) -> bytes:
        return encoded([list(vector) for vector in vectors])


class OpenAIResponses(OpenAIChat):
    """The responses API."""

    options: Mapping[str, Any] = {"api": "responses"}

    def whole(self, answer: Generation) -> bytes:
        return encoded(self._response(answer))

    def pieces(self, answer: Generation) -> Sequence[bytes]:
        begun: dict[str, Any] = {
            "id": answer.id,
            "model": answer.model,
            "status": "in_progress",
            "output": [],
        }
        pieces = [event({"type": "response.created", "response": begun})]
        place = 0
        if answer.text:
            head = {"output_index": place, "item_id": "msg_1", "content_index": 0}
            item: dict[str, Any] = {"type": "message", "id": "msg_1", "status": "in_progress", "content": []}
            pieces.append(event({"type": "response.output_item.added", "output_index": place, "item": item}))
            pieces += [
                event({"type": "response.output_text.delta", **head, "delta": text})
                for text in thirds(answer.text)
            ]
            pieces.append(event({"type": "response.output_text.done", **head, "text": answer.text}))
            place += 1
        for call in answer.tool_calls:
            item = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": ""}
            pieces.append(event({"type": "response.output_item.added", "output_index": place, "item": item}))
            pieces += [
                event(
                    {"type": "response.function_call_arguments.delta", "output_index": place, "delta": text}
                )
                for text in thirds(call.arguments)
            ]
            place += 1
        response = self._response(answer)
        return [*pieces, event({"type": f"response.{response['status']}", "response": response})]

    def filler(self) -> bytes:
        return event({"type": "response.output_text.delta", "output_index": 0, "delta": "more"})

    def _response(self, answer: Generation) -> dict[str, Any]:
        output: list[dict[str, Any]] = []
        if answer.text:
            text: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": []}
            output.append({"type": "message", "id": "msg_1", "role": "assistant", "content": [text]})
        output += [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
            for call in answer.tool_calls
        ]
        cut = answer.finish == "length"
        usage = answer.usage
        return {
            "id": answer.id,
            "object": "response",
            "model": answer.model,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "error": None,
            "output": output,
            "usage": None
            if usage is None
            else {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.total_tokens,
            },
        }


class AnthropicMessages:
    """Anthropic's messages."""

    provider = "anthropic"
    path = ""
    stream_type = "text/event-stream"
    options: Mapping[str, Any] = {}
    _reasons: Mapping[str, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

    def whole(self, answer: Generation) -> bytes:
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
            for call in answer.tool_calls
        ]
        reason = self._reasons[answer.finish]
        head = {"id": answer.id, "type": "message", "role": "assistant", "model": answer.model}
        return encoded(
            {**head, "content": content, "stop_reason": reason, "usage": self._usage(answer.usage)}
        )

    def pieces(self, answer: Generation) -> Sequence[bytes]:
        counted = self._usage(answer.usage)
        head = {"id": answer.id, "type": "message", "role": "assistant", "model": answer.model}
        begun: dict[str, Any] = {
            **head,
            "content": [],
            "stop_reason": None,
            "usage": {**counted, "output_tokens": 1},
        }
        pieces = [event({"type": "message_start", "message": begun}), event({"type": "ping"})]
        place = 0
        if answer.text:
            changes = [{"type": "text_delta", "text": text} for text in thirds(answer.text)]
            pieces += self._block(place, {"type": "text", "text": ""}, changes)
            place += 1
        for call in answer.tool_calls:
            block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            compact = json.dumps(json.loads(call.arguments), separators=(",", ":"))
            texts = ["", *([] if compact == "{}" else thirds(compact))]
            changes = [{"type": "input_json_delta", "partial_json": text} for text in texts]
            pieces += self._block(place, block, changes)
            place += 1
        delta = {"stop_reason": self._reasons[answer.finish], "stop_sequence": None}
        end = {"output_tokens": counted["output_tokens"]}
        pieces.append(event({"type": "message_delta", "delta": delta, "usage": end}))
        return [*pieces, event({"type": "message_stop"})]

    def filler(self) -> bytes:
        change = {"type": "text_delta", "text": "more"}
        return event({"type": "content_block_delta", "index": 0, "delta": change})

    def vectors(self, asked: dict[str, Any], vectors: Sequence[Sequence[float]]) -> bytes:
        raise AssertionError("this format has no vectors")

    @staticmethod
    def _block(place: int, block: dict[str, Any], changes: Sequence[dict[str, Any]]) -> list[bytes]:
        return [
            event({"type": "content_block_start", "index": place, "content_block": block}),
            *(event({"type": "content_block_delta", "index": place, "delta": each}) for each in changes),
            event({"type": "content_block_stop", "index": place}),
        ]

    @staticmethod
    def _usage(usage: Usage | None) -> dict[str, Any]:
        counted = usage or Usage()
        apart = counted.cached_tokens + counted.cache_write_tokens
        return {
            "input_tokens": counted.input_tokens - apart,
            "output_tokens": counted.output_tokens,
            "cache_read_input_tokens": counted.cached_tokens,
            "cache_creation_input_tokens": counted.cache_write_tokens,
        }


class OllamaChat:
    """Ollama's chat and vectors."""

    provider = "ollama"
    path = ""
    stream_type = "application/x-ndjson"
    options: Mapping[str, Any] = {}

    def whole(self, answer: Generation) -> bytes:
        return self._line(answer, self._message(answer.text, answer), done=True)

    def pieces(self, answer: Generation) -> Sequence[bytes]:
        lines = [self._line(answer, self._message(text)) for text in thirds(answer.text)]
        if answer.tool_calls:
            lines.append(self._line(answer, self._message("", answer)))
        return [*lines, self._line(answer, self._message(""), done=True)]

    def filler(self) -> bytes:
        return self._line(Generation(model="m"), self._message("more"))

    def vectors(self, asked: dict[str, Any], vectors: Sequence[Sequence[float]]) -> bytes:
        found = [list(vector) for vector in vectors]
        return encoded({"model": asked["model"], "embeddings": found, "prompt_eval_count": 7})

    @staticmethod
    def _message(text: str, answer: Generation | None = None) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if answer is not None and answer.tool_calls:
            message["tool_calls"] = [
                {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}
                for call in answer.tool_calls
            ]
        return message

    @staticmethod
    def _line(answer: Generation, message: dict[str, Any], *, done: bool = False) -> bytes:
        line: dict[str, Any] = {"model": answer.model, "created_at": "", "message": message, "done": done}
        if done:
            counted = answer.usage or Usage()
            line |= {
                "done_reason": "length" if answer.finish == "length" else "stop",
                "prompt_eval_count": counted.input_tokens,
                "eval_count": counted.output_tokens,
            }
        return encoded(line) + b"\n"
