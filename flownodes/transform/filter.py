"""transform.filter: lets pass the rows for which an expression is true."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from flowcore.expression import Expression
from flowcore.node import node
from flownodes.conditions import is_true


@node("transform.filter", kind="filter", computes="where", deterministic=True)
def filter(
    value: Any, *, where: Annotated[Expression, Meta(description="what must be true of `value`")]
) -> bool:
    """True when `where` is true of the value: `where: value.amount > 100`.

    Emits when      `where` is true; the value is passed on as it is.
    Drops           the rows for which it is false; counted as `dropped`, never a failure.
    Fails when      `where` has no value, or one that is neither true nor false.
    Cost            compiled into the surrounding stage.
    """
    return is_true(where, value)
