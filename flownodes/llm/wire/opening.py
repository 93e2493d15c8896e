"""What an endpoint says, made ready when it is opened: its options, its key, its address.

Owns: `options_of`, `key_of`, `address_of`. Does not own: which options, keys and addresses a provider has.

Always holds: everything that is wrong with an endpoint is a ConfigError here, before any exchange; no message
has the key.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from flowcore.errors import ConfigError, SecretNotFoundError
from flowcore.findings import did_you_mean, shown
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import ProviderContext
from flowcore.values import Secret

S = TypeVar("S", bound=msgspec.Struct)


def options_of(endpoint: Endpoint, kind: type[S]) -> S:
    """The options of an endpoint.

    Raises:
        ConfigError: there is one the provider does not know, or one is not what it should be.
    """
    known = kind.__struct_encode_fields__
    for name in endpoint.options:
        if name not in known:
            nearest = did_you_mean(name, known)
            remedy = f"; {nearest}" if nearest else "; it has none: remove it"
            raise ConfigError(
                f"options: provider {endpoint.provider!r} has no option {shown(name)}{remedy}",
                field=f"options.{name}",
                value=name,
            )
    try:
        return msgspec.convert(dict(endpoint.options), kind)
    except msgspec.ValidationError as fault:
        raise ConfigError(
            f"options of provider {endpoint.provider!r}: {fault}; correct it", field="options"
        ) from fault


def key_of(
    endpoint: Endpoint, ctx: ProviderContext, variable: str | None, *, required: bool = True
) -> Secret | None:
    """The key of an endpoint, from its configuration or from the provider's usual variable.

    Raises:
        ConfigError: there is none and one is required, or it cannot stand in a header.
    """
    key = endpoint.api_key
    if key is None and variable is not None:
        try:
            key = ctx.secret(variable)
        except SecretNotFoundError as missing:
            if required:
                raise ConfigError(
                    f"provider {endpoint.provider!r} needs a key: set the environment variable {variable}, "
                    "or api_key: {$secret: NAME}",
                    field="api_key",
                ) from missing
    if key is None or not key.reveal():
        if required:
            raise ConfigError(
                f"provider {endpoint.provider!r} needs a key, and the one it was given is empty; set "
                f"api_key: {{$secret: {variable or 'NAME'}}}",
                field="api_key",
            )
        return None
    text = key.reveal()
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ConfigError(
            f"the key of provider {endpoint.provider!r} has spaces, line ends or letters that cannot stand "
            "in a header; set it without them",
            field="api_key",
        )
    return key


def address_of(endpoint: Endpoint, usual: str | None, *, example: str = "https://HOST/v1") -> str:
    """Where the provider is, without a slash at the end.

    Raises:
        ConfigError: there is none, or it is no address of http or https.
    """
    address = endpoint.base_url or usual
    if address is None:
        raise ConfigError(
            f"provider {endpoint.provider!r} has no address of its own; set base_url: {example}",
            field="base_url",
        )
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_more = bool(parts.query or parts.fragment or parts.username or parts.password)
    except ValueError:
        is_whole = has_more = False
    if not is_whole or has_more:
        raise ConfigError(
            f"base_url of provider {endpoint.provider!r} is not the address of a service; write it like "
            f"{example}, without a user, a query and a fragment",
            field="base_url",
        )
    return address.rstrip("/")
