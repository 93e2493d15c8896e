"""transform.map: builds a new value from expressions."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from flowcore.expression import Template
from flowcore.node import node


@node("transform.map", computes="fields", deterministic=True)
def map(
    value: Any,
    *,
    fields: Annotated[
        Template,
        Meta(
            description="the new value: its texts are expressions over `value`; {$literal: x} is x itself, "
            "in a file {$$literal: x}"
        ),
    ],
) -> Any:
    """The value `fields` describes: `{id: value.id, total: "value.price * value.count", by: {$literal: a}}`.

    In a workflow file a key of your own that begins with `$` is written `$$`, so `{$$literal: a}`.

    Emits when      every expression has a value.
    Drops           nothing.
    Fails when      an expression has none (a missing field, kinds that do not fit); test with `has()`.
    Cost            compiled into the surrounding stage; about that of the same Python.
    """
    return fields(value=value)
