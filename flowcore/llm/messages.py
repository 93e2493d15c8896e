"""What is said to a model and what it says: messages, their parts, tools and calls of tools.

Owns: the words every provider's wire format is translated from and to.
Does not own: any wire format (providers), rendering of prompts (nodes), calling a tool (the agent).

Always holds: plain data, frozen; arguments of a tool call are the JSON text the model wrote, unparsed, so
that nothing is lost where it is not JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """Text of a message."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """An image of a message: its bytes, or where the provider finds it. Exactly one of the two."""

    data: bytes | None = None
    url: str | None = None
    media_type: str = "image/png"

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an image needs its bytes (data) or its address (url), and not both")


Part: TypeAlias = TextPart | ImagePart


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A model asks for a tool."""

    id: str
    """As the provider names it; the answer refers to it."""
    name: str
    arguments: str
    """JSON text of an object, as the model wrote it: check it before use."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a conversation."""

    role: Role
    content: str | tuple[Part, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant that asks for tools."""
    tool_call_id: str | None = None
    """Of role `tool`: which call this answers."""
    is_error: bool = False
    """Of role `tool`: the tool failed, and `content` says why."""

    @property
    def text(self) -> str:
        """The text of all parts, one after the other."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool a model may ask for."""

    name: str
    """`[A-Za-z0-9_-]{1,64}`, as all providers allow."""
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of its arguments, an object."""


class OutputSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The form an answer must have; the provider is asked to keep to it, and the node checks."""

    name: str
    schema: Mapping[str, Any]
    """JSON Schema."""
    strict: bool = True
    """Ask for the provider's guarantee, where it has one."""


def system(text: str) -> Message:
    """What the model should keep to."""
    return Message(role="system", content=text)


def user(text: str) -> Message:
    """What is asked."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """What the model said."""
    return Message(role="assistant", content=text)
