"""transform.split: makes a row of each item of a list, or of each piece of a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from flowcore.node import node
from flownodes.fields import wrong_kind


@node("transform.split", deterministic=True)
def split(
    value: list[Any] | str,
    *,
    separator: Annotated[
        str, Meta(min_length=1, description="for text: what stands between the pieces")
    ] = "\n",
    strip: Annotated[bool, Meta(description="for text: without the blanks around each piece")] = True,
    keep_empty: Annotated[bool, Meta(description="for text: empty pieces are rows too")] = False,
) -> Iterator[Any]:
    """One row per item of the list, or per piece of the text, in order; the rows are children of theirs.

    Emits when      the list has items, the text has pieces; one row each, as they are asked for.
    Drops           empty pieces of a text, unless `keep_empty`; an empty list yields no row.
    Fails when      the value is neither a list nor text.
    Cost            O(1) a row; `max_children` bounds the rows of one row.
    """
    if isinstance(value, str):
        return _pieces(value, separator, strip=strip, keep_empty=keep_empty)
    if type(value) is list:
        return iter(value)
    raise wrong_kind(
        value,
        "a list or text",
        "transform.split",
        "connect the field that holds the list, as in fetch.out.items",
    )


def _pieces(text: str, separator: str, *, strip: bool, keep_empty: bool) -> Iterator[str]:
    start = 0
    while start <= len(text):
        end = text.find(separator, start)
        end = len(text) if end < 0 else end
        piece = text[start:end]
        piece = piece.strip() if strip else piece
        if piece or keep_empty:
            yield piece
        start = end + len(separator)
