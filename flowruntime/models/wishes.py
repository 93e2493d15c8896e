"""What a node's configuration says of its calls of models, whatever the configuration looks like.

Owns: `asks_for_letters`. Does not own: carrying it out (flowruntime.operators.kernel).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from flowcore.llm.policy import BudgetPolicy

_DEEP: Final = 6


def asks_for_letters(config: Any, depth: int = 0) -> bool:
    """Whether a budget anywhere in it makes rows dead letters, whatever `on_error` says."""
    if isinstance(config, BudgetPolicy):
        return config.reaction == "dead_letter"
    if depth >= _DEEP:
        return False
    inside: Iterable[Any] = ()
    if isinstance(config, msgspec.Struct):
        inside = (getattr(config, name) for name in config.__struct_fields__)
    elif isinstance(config, Mapping):
        inside = cast("Mapping[Any, Any]", config).values()
    elif isinstance(config, list | tuple):
        inside = cast("Iterable[Any]", config)
    return any(asks_for_letters(each, depth + 1) for each in inside)
