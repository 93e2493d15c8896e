"""transform.json_stringify: writes a value as JSON, without loss or with a clear error."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from msgspec import Meta

from flowcore.node import node
from flowcore.plain import to_plain
from flowcore.values import Json


@node("transform.json_stringify", deterministic=True)
def json_stringify(
    value: Any,
    *,
    form: Annotated[
        Literal["json", "lossless"],
        Meta(
            description="json: refuse what JSON has no form for; lossless: write bytes, NaN and the like as "
            '{"$bytes": ...}, which flowrx reads back'
        ),
    ] = "json",
    indent: Annotated[int | None, Meta(description="blanks per level; null writes one line")] = None,
    sort_keys: bool = False,
) -> str:
    """The value as JSON text.

    Emits when      every part of the value has a JSON form.
    Drops           nothing.
    Fails when      it holds bytes, NaN, an infinity or a lone surrogate (`form: lossless` writes those), or
                    something that is no value, such as a Stream; the error has the path.
    Cost            O(size of the value).
    """
    if form == "lossless":
        return _dump(to_plain(value), indent, sort_keys=sort_keys)
    plain = value.parse() if isinstance(value, Json) else value
    encoded = Json.of(plain)  # checks every part, so that what follows cannot lose anything
    if indent is None and not sort_keys:
        return encoded.raw.decode()
    return _dump(plain, indent, sort_keys=sort_keys)


def _dump(plain: object, indent: int | None, *, sort_keys: bool) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(plain, ensure_ascii=False, separators=separators, indent=indent, sort_keys=sort_keys)
