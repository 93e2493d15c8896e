"""Taking secrets out of what people will read: events, log lines, spans.

Owns: the secrets known to this runtime, and the names of fields that hold one.
Does not own: resolving secrets (they announce themselves here), who calls it (bus, logs, tracing).

Always holds: a known secret of at least `MIN_LENGTH` characters appears in nothing that went through `text`,
`value` or `event`, also not percent-encoded; what holds none comes back as the same object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

import msgspec

from flowcore.events import (
    MAX_DEPTH,
    ExecutionEvent,
    NodeCompleted,
    NodeSkipped,
    NodeStarted,
    StageProgress,
    WorkflowCompleted,
    WorkflowResumed,
    WorkflowStarted,
)
from flowcore.values import Json, Secret, ValueFormError

E = TypeVar("E", bound=ExecutionEvent)

MASK: Final = "***"
MIN_LENGTH: Final = 4
"""A shorter secret is not searched for: masking every `a` would make all text unreadable."""

SECRET_FIELDS: Final = frozenset(
    {
        "access_token", "api_key", "apikey", "auth_token", "authorization", "client_secret", "cookie",
        "id_token", "passwd", "password", "private_key", "proxy_authorization", "refresh_token", "secret",
        "set_cookie", "x_api_key",
    }
)  # fmt: skip
"""Compared in lower case, with `-` as `_`: what stands under them is masked, known or not."""

_NO_TEXT = frozenset(
    {NodeStarted, NodeSkipped, StageProgress, WorkflowResumed, WorkflowStarted, WorkflowCompleted}
)
"""Kinds without a field anybody else wrote: they pass at once."""


class Redactor:
    """Masks the secrets it was told of.

    Secrets are added when they are resolved and never removed: an old one may still stand in a late message.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._bytes_pattern: re.Pattern[bytes] | None = None

    def add(self, secret: Secret) -> None:
        """Mask it from now on."""
        text = secret.reveal()
        if len(text) < MIN_LENGTH:
            return
        from urllib.parse import quote  # only where there is a secret: it would cost every start

        forms = {text, quote(text, safe="", errors="surrogatepass"), quote(text, errors="surrogatepass")}
        if not forms <= self._known:
            self._known |= forms
            longest_first = [re.escape(form) for form in sorted(self._known, key=len, reverse=True)]
            self._pattern = re.compile("|".join(longest_first))
            encoded = (form.encode(errors="surrogatepass") for form in longest_first)
            self._bytes_pattern = re.compile(b"|".join(encoded))

    def text(self, text: str) -> str:
        """`text` with every known secret masked."""
        if self._pattern is None or self._pattern.search(text) is None:
            return text
        return self._pattern.sub(MASK, text)

    def value(self, value: object) -> Any:
        """Plain data with known secrets, and all under the names in `SECRET_FIELDS`, masked; structs too."""
        return self._value(value, 0)

    def event(self, event: E) -> E:
        """A copy without secrets, or `event` itself when there is none in it; for `EventBus(scrub=...)`."""
        kind = type(event)
        if kind in _NO_TEXT or (kind is NodeCompleted and event.outputs is msgspec.UNSET):  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue] - the kind was tested
            return event
        return cast("E", self._struct(event, 0))

    def _value(self, value: object, depth: int) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, Json):
            return self._json(value, depth)
        return self._container(value, depth)

    def _json(self, value: Json, depth: int) -> object:
        """JSON that was not parsed yet: what stands under the name of a secret is found there, too."""
        raw = self._bytes(value.raw)
        try:
            parsed = value.parse()
            clean = self._value(parsed, depth)
            if clean is not parsed:
                return Json.of(clean)
        except ValueFormError:
            pass
        return value if raw is value.raw else Json(raw)

    def _container(self, value: object, depth: int) -> object:
        if isinstance(value, Mapping | list | tuple | msgspec.Struct) and depth >= MAX_DEPTH:
            return MASK
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value), depth)
        if isinstance(value, list | tuple):
            return self._sequence(cast("list[object] | tuple[object, ...]", value), depth)
        return self._struct(value, depth) if isinstance(value, msgspec.Struct) else value

    def _bytes(self, value: bytes) -> bytes:
        if self._bytes_pattern is None or self._bytes_pattern.search(value) is None:
            return value
        return self._bytes_pattern.sub(MASK.encode(), value)

    def _mapping(self, value: Mapping[object, object], depth: int) -> object:
        clean = {
            self._value(key, depth + 1): MASK if _names_secret(key) else self._value(item, depth + 1)
            for key, item in value.items()
        }
        same = all(key in clean and clean[key] is item for key, item in value.items())
        return value if same else clean

    def _sequence(self, value: list[object] | tuple[object, ...], depth: int) -> object:
        clean = [self._value(item, depth + 1) for item in value]
        if all(new is old for new, old in zip(clean, value, strict=True)):
            return value
        return clean if isinstance(value, list) else tuple(clean)

    def _struct(self, value: msgspec.Struct, depth: int) -> msgspec.Struct:
        changed: dict[str, Any] = {}
        for name in value.__struct_fields__:
            field: object = getattr(value, name)
            clean = self._value(field, depth + 1)
            if clean is not field:
                changed[name] = clean
        return msgspec.structs.replace(value, **changed) if changed else value


def _names_secret(key: object) -> bool:
    return isinstance(key, str) and key.lower().replace("-", "_") in SECRET_FIELDS
