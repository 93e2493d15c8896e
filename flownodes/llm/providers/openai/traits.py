"""In what the services that speak OpenAI's wire format differ.

Owns: `Traits`, `Options`.
Does not own: the services (presets), the wire format (chat, responses, embeddings).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """One service."""

    base_url: str | None
    """None: it has no address of its own, and `base_url` must be set."""
    address_variable: str | None = None
    """The environment variable with the address, where each customer has one."""
    example: str = "https://HOST/v1"
    key: str | None = None
    """The usual environment variable."""
    key_required: bool = True
    key_header: Literal["authorization", "api-key"] = "authorization"
    renamed: Mapping[str, str] = {}
    """Our name of a field of the request: theirs."""
    usage_on_request: bool = True
    """A stream tells its usage only where `stream_options` asks for it."""
    json_schema: bool = True
    """Holds answers to a schema; else they are only JSON, and the schema is told in the prompt."""
    embeds: bool = True
    base64: bool = False
    """Gives vectors as base64 where it is asked to: a third of the bytes, and quicker to read."""
    max_embed_texts: int = 256
    responses: bool = False
    """Has the responses API."""
    deployments: bool = False
    """The model is a part of the path, and `api_version` of the query (Azure); not below `/openai/v1`."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of every service."""


class ResponsesOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of services that have two APIs for the same."""

    api: Literal["chat", "responses"] = "chat"


class OpenAIOptions(ResponsesOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of OpenAI itself."""

    organization: Annotated[str, Meta(min_length=1)] | None = None
    project: Annotated[str, Meta(min_length=1)] | None = None


class AzureOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of Azure OpenAI."""

    api_version: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$")] = "2024-10-21"
    deployment: Annotated[str, Meta(min_length=1)] | None = None
    """None: named like the model."""
