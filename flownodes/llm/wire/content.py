"""What several wire formats write the same way: images, finish reasons, arguments of tools.

Owns: `data_url`, `base64_of`, `arguments_text`, `counted`. Pure.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from flowcore.llm.messages import ImagePart


def base64_of(data: bytes) -> str:
    """Bytes as ASCII."""
    return base64.b64encode(data).decode("ascii")


def data_url(image: ImagePart) -> str:
    """Where a provider finds an image: its address, or its bytes as a `data:` URL."""
    if image.url is not None:
        return image.url
    return f"data:{image.media_type};base64,{base64_of(image.data or b'')}"


def counted(tokens: int | None) -> int:
    """Tokens a service says it counted: 0 where it says nothing, and where it says less than nothing."""
    return max(0, tokens or 0)


def arguments_text(arguments: str | dict[str, Any] | None) -> str:
    """The JSON text of a tool call's arguments, which some servers give as an object; `{}` for none."""
    if isinstance(arguments, str):
        return arguments or "{}"
    return msgspec.json.encode(arguments or {}).decode()
