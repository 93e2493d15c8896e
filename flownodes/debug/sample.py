"""debug.sample: lets some rows pass, the same ones each time."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from flowcore.context import NodeContext
from flowcore.errors import ConfigError
from flowcore.expression import Expression
from flowcore.node import Node
from flowcore.plain import to_plain


class SampleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of debug.sample: `every` or `fraction`."""

    every: Annotated[int | None, Meta(description="the first row and each n-th after it")] = None
    fraction: Annotated[float | None, Meta(description="share of rows, 0 to 1, chosen by `seed`")] = None
    seed: int = 0
    by: Annotated[
        Expression | None,
        Meta(description="with `fraction`: rows with equal values of this expression pass or drop together"),
    ] = None

    def __post_init__(self) -> None:
        if (self.every is None) == (self.fraction is None):
            raise ConfigError("say either every: n or fraction: 0.1, one of the two")
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every: must be at least 1, not {self.every}")
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise ConfigError(f"fraction: must be from 0 to 1, not {self.fraction}")
        if self.by is not None and self.fraction is None:
            raise ConfigError("by: goes with fraction; remove it or say fraction instead of every")


class SampleIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class Sample(Node[SampleConfig, SampleIn, bool], type="debug.sample", kind="filter"):
    """Lets a sample of the rows pass: `every: 100`, or `fraction: 0.01`, or that by a key of the row.

    The choice depends on `seed` and on the row's number since the node was made; with `by`, on `seed` and the
    key alone, so that it is the same on every worker and after a restart.

    Emits when      the row is chosen; it is passed on as it is.
    Drops           the others; counted as `dropped`.
    Fails when      `by` has no value, or one that is no plain value.
    Holds           one number.
    """

    def __init__(self, config: SampleConfig) -> None:
        super().__init__(config)
        self._seen = 0
        self._prefix = config.seed.to_bytes((config.seed.bit_length() + 8) // 8, "big", signed=True)

    def execute(self, inputs: SampleIn, ctx: NodeContext) -> bool:
        number = self._seen
        self._seen += 1
        if self.config.every is not None:
            return number % self.config.every == 0
        by = self.config.by
        chosen: object = number if by is None else to_plain(by(value=inputs.value))
        point = msgspec.json.encode(chosen)
        digest = hashlib.blake2b(point, digest_size=8, key=self._prefix[:64]).digest()
        return int.from_bytes(digest, "big") < (self.config.fraction or 0.0) * 2**64
