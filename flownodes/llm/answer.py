"""Answers of models as values of a row: plain data with what they cost.

Owns: `told`, `accepted`. Does not own: calls (the runtime), forms of answers (structured).
"""

from __future__ import annotations

from typing import Any

import msgspec

from flowcore.errors import LimitExceededError
from flowcore.llm.answers import Generation, Usage
from flowcore.llm.errors import ContentRefusedError


def told(answer: Generation, *, calls: int = 1, usage: Usage | None = None) -> dict[str, Any]:
    """The answer as plain data: text, finish, model, id, tool_calls, usage (null: not told), calls made."""
    counted = usage or answer.usage
    return {
        "text": answer.text,
        "finish": answer.finish,
        "model": answer.model,
        "id": answer.id,
        "tool_calls": [msgspec.structs.asdict(call) for call in answer.tool_calls],
        "usage": None if counted is None else msgspec.structs.asdict(counted),
        "calls": calls,
    }


def accepted(answer: Generation, provider: str, *, fail_truncated: bool = False) -> Generation:
    """The answer, when it is one.

    Raises:
        ContentRefusedError: the provider's filter or the model refused.
        LimitExceededError: it was cut off at `max_tokens`, and that is to fail.
    """
    if answer.finish in ("content_filter", "refusal"):
        who = "the provider's filter" if answer.finish == "content_filter" else "the model"
        raise ContentRefusedError(
            f"{who} refused to answer; change the prompt, or let on_error take the row",
            provider=provider,
            model=answer.model,
            reason=answer.finish,
        )
    if answer.finish == "length" and fail_truncated:
        raise LimitExceededError(
            f"the answer was cut off after {len(answer.text):,} characters; raise max_tokens",
            provider=provider,
            model=answer.model,
        )
    return answer
