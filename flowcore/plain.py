"""The plain form of values: data that JSON, YAML and msgpack carry without loss.

Owns: the mapping in both directions and its `$` forms.
Does not own: the codecs, or values themselves (flowcore.values).

Always holds: `from_plain(to_plain(value))` is the same value, kinds included (1, 1.0 and True stay apart);
what has no plain form is an error with its path, never a near miss.
"""

from __future__ import annotations

import base64
import math
from typing import Any, Final, cast

from flowcore.findings import Path, shown
from flowcore.values import (
    DECIMAL_BITS,
    MAX_DEPTH,
    Json,
    SecretRef,
    encodable,
    no_form,
    plain_key,
    unsupported,
)

_LEAST_64, _MOST_64 = -(1 << 63), (1 << 64) - 1
_ODD_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_plain(value: object) -> object:
    """The value as data that any codec carries: None, bool, 64-bit int, finite float, str, list, dict.

    bytes become `{"$bytes": base64}`, larger ints `{"$int": text}`, NaN and infinities `{"$float": "nan"}`,
    Json `{"$json": text}`, SecretRef `{"$secret": name}`, text with lone surrogates `{"$wtf8": base64}`; a
    user's key that starts with `$` gets another `$`.

    Raises:
        ValueFormError: the value holds something else (a Stream, a tuple, a datetime, a key that is not
            text, ...) or is nested deeper than `MAX_DEPTH`.
    """
    return _to_plain(value, ())


def from_plain(data: object) -> Any:
    """The value that `to_plain` turned into `data`; lists and dicts are new.

    Raises:
        ValueFormError: an unknown `$` form, a malformed one, or something that is no plain data.
    """
    return _from_plain(data, ())


def _to_plain(value: object, path: Path) -> object:
    if len(path) > MAX_DEPTH:
        raise no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    if type(value) is list:
        return [_to_plain(item, (*path, index)) for index, item in enumerate(cast("list[object]", value))]
    if type(value) is dict:
        pairs = cast("dict[object, object]", value).items()
        return {plain_key(key, path): _to_plain(item, (*path, str(key))) for key, item in pairs}
    return _leaf_to_plain(value, path)


def _leaf_to_plain(value: object, path: Path) -> object:  # noqa: PLR0911 - one return per kind
    match value:
        case None | bool():
            return value
        case int() if type(value) is int:
            return value if _LEAST_64 <= value <= _MOST_64 else {"$int": _int_text(value)}
        case float() if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        case str() if type(value) is str:
            return value if encodable(value) else {"$wtf8": _b64(value.encode("utf-8", "surrogatepass"))}
        case bytes():
            return {"$bytes": _b64(value)}
        case Json():
            return {"$json": _json_text(value.raw)}
        case SecretRef():
            return {"$secret": value.name}
        case _:
            raise unsupported(value, path)


def _from_plain(data: object, path: Path) -> object:
    if len(path) > MAX_DEPTH:
        raise no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(data, list):
        return [_from_plain(item, (*path, index)) for index, item in enumerate(cast("list[object]", data))]
    if isinstance(data, dict):
        mapping = cast("dict[object, object]", data)
        for key in mapping:
            if not isinstance(key, str):
                raise no_form(path, f"has the key {shown(key)}, which is not text; put it in quotes")
        return _read_mapping(cast("dict[str, object]", mapping), path)
    if data is None or type(data) in {bool, int, float, str}:
        return data
    raise unsupported(data, path)


def _read_mapping(mapping: dict[str, object], path: Path) -> object:
    if any(key.startswith("$") and not key.startswith("$$") for key in mapping):
        return _read_form(mapping, path)
    return {
        key.removeprefix("$") if key[:1] == "$" else key: _from_plain(v, (*path, key))
        for key, v in mapping.items()
    }


def _read_form(mapping: dict[str, object], path: Path) -> object:
    form = next(key for key in mapping if key.startswith("$") and not key.startswith("$$"))
    reader = _FORMS.get(form)
    if reader is None:
        known = ", ".join(_FORMS)
        raise no_form(
            path, f"has the key {shown(form)}; known forms are {known}; write '$${form[1:]}' for a plain key"
        )
    if len(mapping) != 1:
        raise no_form(path, f"has keys beside {form!r}, which must stand alone")
    content = mapping[form]
    try:
        return reader(content)
    except (ValueError, TypeError, AttributeError) as fault:
        raise no_form((*path, form), f"has {shown(content)}, which is no {form} form ({fault})") from fault


def _read_bytes(content: object) -> bytes:
    if not isinstance(content, str):
        raise TypeError("base64 text expected")
    return base64.b64decode(content.encode("ascii"), validate=True)


def _read_int(content: object) -> int:
    if not isinstance(content, str) or content != content.strip() or "_" in content:
        raise TypeError("text of digits expected")
    return int(content, 16) if content.lstrip("-").startswith("0x") else int(content)


def _read_float(content: object) -> float:
    if not isinstance(content, str) or content not in _ODD_FLOATS:
        raise TypeError("one of nan, inf, -inf expected")
    return _ODD_FLOATS[content]


def _read_wtf8(content: object) -> str:
    return _read_bytes(content).decode("utf-8", "surrogatepass")


def _read_json(content: object) -> Json:
    if isinstance(content, str):
        return Json(content.encode())
    if not isinstance(content, dict) or set(cast("dict[str, object]", content)) != {"$bytes"}:
        raise TypeError("text, or {$bytes: ...}, expected")
    return Json(_read_bytes(cast("dict[str, object]", content)["$bytes"]))


def _read_secret(content: object) -> SecretRef:
    if not isinstance(content, str):
        raise TypeError("the secret's name expected")
    return SecretRef(content)


_FORMS: Final = {
    "$bytes": _read_bytes,
    "$int": _read_int,
    "$float": _read_float,
    "$json": _read_json,
    "$secret": _read_secret,
    "$wtf8": _read_wtf8,
}
PLAIN_FORMS: Final = tuple(_FORMS)


def _int_text(value: int) -> str:
    return str(value) if value.bit_length() <= DECIMAL_BITS else hex(value)


def _json_text(raw: bytes) -> object:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"$bytes": _b64(raw)}


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
