"""From what comes in to what is asked: prompts rendered, conversations read.

Owns: `asked`, `conversation`. Does not own: templates (prompt), calls (the runtime).

Always holds: what is no text and no message is an error with its place, never guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast, get_args

import msgspec

from flowcore.coercion import coerce
from flowcore.errors import WrongKindError
from flowcore.findings import shown
from flowcore.llm.messages import ImagePart, Message, Part, Role, TextPart, ToolCall, system, user
from flowcore.values import Json, kind_of
from flownodes.fields import wrong_kind
from flownodes.llm.prompt import rendered

_ROLES: Final = get_args(Role)
_FIELDS: Final = frozenset({"role", "content", "tool_calls", "tool_call_id", "is_error"})


def asked(prompt: str | None, instruction: str | None, value: object) -> tuple[Message, ...]:
    """The messages of one question.

    Args:
        prompt: template of the question; None: the value as text (objects and lists as JSON).
        instruction: template of the system message; None: none.
        value: what came in.

    Raises:
        MissingFieldError, WrongKindError, LimitExceededError: see `rendered`.
    """
    question = as_text(value) if prompt is None else rendered(prompt, value, {}, "prompt")
    told = () if instruction is None else (system(rendered(instruction, value, {}, "system")),)
    return (*told, user(question))


def as_text(value: object) -> str:
    """A value as a model reads it.

    Raises:
        WrongKindError: null, or what has no form as text.
    """
    if kind_of(value) in ("list", "dict"):
        return Json.of(value).raw.decode()
    if value is None or kind_of(value) in ("bytes", "stream", None):
        raise wrong_kind(value, "text", "a prompt", "connect text, or say `prompt` with the fields to put in")
    written: str = coerce(value, "str", path=("value",))
    return written


def conversation(value: object) -> tuple[Message, ...]:
    """Messages as plain data, read: `[{"role": "user", "content": "..."}]`, a single one, or plain text.

    Raises:
        WrongKindError: something is no message; the error says where and what.
    """
    given: Any = value.parse() if isinstance(value, Json) else value
    if isinstance(given, str):
        return (user(given),)
    turns = cast("list[object]", [given] if isinstance(given, Mapping) else given)
    if type(turns) is not list or not turns:
        raise _no_message("", given, "a list of messages such as {role: user, content: ...}")
    return tuple(_message(each, f"[{index}]") for index, each in enumerate(turns))


def _message(value: object, at: str) -> Message:
    if not isinstance(value, Mapping):
        raise _no_message(at, value, "a message: role and content")
    fields = cast("Mapping[str, Any]", value)
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise _no_message(f"{at}.{unknown[0]}", fields[unknown[0]], f"one of {', '.join(sorted(_FIELDS))}")
    if fields.get("role") not in _ROLES:
        raise _no_message(f"{at}.role", fields.get("role"), f"one of {', '.join(_ROLES)}")
    calls: Any = fields.get("tool_calls") or []
    try:
        return Message(
            role=fields["role"],
            content=_content(fields.get("content", ""), f"{at}.content"),
            tool_calls=tuple(msgspec.convert(calls, list[ToolCall])),
            tool_call_id=msgspec.convert(fields.get("tool_call_id"), str | None),
            is_error=msgspec.convert(fields.get("is_error", False), bool),
        )
    except msgspec.ValidationError as fault:
        raise _no_message(at, value, f"a message ({fault})") from fault


def _content(value: object, at: str) -> str | tuple[Part, ...]:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if not isinstance(value, list):
        raise _no_message(at, value, "text, or a list of parts")
    return tuple(_part(each, f"{at}[{index}]") for index, each in enumerate(cast("list[object]", value)))


def _part(value: object, at: str) -> Part:
    if isinstance(value, str):
        return TextPart(value)
    fields: Mapping[str, Any] = _fields(value)
    if fields.get("type") == "text" and isinstance(fields.get("text"), str):
        return TextPart(fields["text"])
    if fields.get("type") == "image":
        try:
            return ImagePart(
                data=fields.get("data"),
                url=fields.get("url"),
                media_type=fields.get("media_type", "image/png"),
            )
        except ValueError as fault:
            raise _no_message(at, value, str(fault)) from fault
    raise _no_message(at, value, "a part: {type: text, text: ...} or {type: image, url: ...}")


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _no_message(at: str, value: Any, expected: str) -> WrongKindError:
    return WrongKindError(
        f"messages{at}: expected {expected}, not {shown(value)}", expected=expected, given=shown(value)
    )
