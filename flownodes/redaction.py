"""Redaction: a copy of a value without what must not be read by everyone.

Owns: replacing the contents of fields by name, and shortening what is long.
Does not own: what is published where (debug nodes), `Secret` (flowcore.values), whose repr is `***` already.

Always holds: the original is unchanged; names compare without case, `-` and `_`; the copy is plain data of
bounded size: at most `MAX_PARTS` parts and `MAX_DEPTH` levels, the rest shown as `...`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, cast

from msgspec import Meta

from flowcore.findings import shown
from flowcore.values import Json, Secret, ValueFormError

HIDDEN: Final = "***"
CUT: Final = "..."
MAX_PARTS: Final = 1_000
MAX_DEPTH: Final = 16

DEFAULT_NAMES: Final = ("api_key", "authorization", "cookie", "password", "secret", "set_cookie", "token")

Redact = Annotated[
    list[str],
    Meta(description="fields, at any depth, shown as ***; api_key, password, token and the like always are"),
]


class Redactor:
    """Makes copies fit to be shown; one instance may serve any number of values."""

    def __init__(self, names: Iterable[str], *, max_characters: int) -> None:
        self._names: Final = frozenset(map(_plain_name, (*DEFAULT_NAMES, *names)))
        self._max: Final = max_characters

    def copy(self, value: object) -> Any:
        """The value without hidden contents, long texts cut; never raises."""
        return self._copy(value, 0, [MAX_PARTS])

    def _copy(self, value: object, depth: int, left: list[int]) -> Any:  # noqa: PLR0911 - one return per kind
        left[0] -= 1
        if left[0] < 0 or depth > MAX_DEPTH:
            return CUT
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return value if len(value) <= self._max else f"{value[: self._max]}{CUT}"
        if isinstance(value, Secret):
            return HIDDEN
        if isinstance(value, dict):
            return self._fields(cast("dict[object, object]", value), depth, left)
        if isinstance(value, list | tuple):
            return self._items(cast("list[object]", value), depth, left)
        if isinstance(value, Json):
            return self._json(value, depth, left)
        return shown(value)

    def _fields(self, value: dict[object, object], depth: int, left: list[int]) -> dict[str, Any]:
        copy: dict[str, Any] = {}
        for key, content in value.items():
            if left[0] <= 0:
                copy[CUT] = f"{len(value) - len(copy)} more"
                break
            name = str(key)
            copy[name] = HIDDEN if _plain_name(name) in self._names else self._copy(content, depth + 1, left)
        return copy

    def _items(self, value: list[object], depth: int, left: list[int]) -> list[Any]:
        copy: list[Any] = []
        for item in value:
            if left[0] <= 0:
                copy.append(f"{CUT} {len(value) - len(copy)} more")
                break
            copy.append(self._copy(item, depth + 1, left))
        return copy

    def _json(self, value: Json, depth: int, left: list[int]) -> Any:
        try:
            return self._copy(value.parse(), depth, left)
        except ValueFormError:
            return shown(value)


def _plain_name(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
