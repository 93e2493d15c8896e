"""How a call that waits for an answer ends: by an exception that is no error and that no node may keep.

Owns: `Suspension`, and finding it in what a call raised.
Does not own: raising it (rows), what becomes of the row (flowruntime.operators.waiting).

Always holds: `except Exception` of a node lets it pass, `finally` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcore.waits import Wait


class Suspension(BaseException):
    """The call ends here; its row waits."""

    def __init__(self, *waits: Wait) -> None:
        super().__init__("the row waits for an answer; let this pass, it ends the call")
        self.waits = waits
        """What for; several where a call asked for several at once (a TaskGroup, gather)."""


def suspension_in(error: BaseException) -> Suspension | None:
    """The suspension that ended a call; None when something else did, or something else, too."""
    if isinstance(error, Suspension):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    _, rest = error.split(Suspension)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - of any exceptions
    if rest is not None:
        return None
    found = [wait for each in _leaves(error) if isinstance(each, Suspension) for wait in each.waits]
    return Suspension(*found)


def _leaves(error: Any) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    parts: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - of any exceptions
    return [leaf for part in parts for leaf in _leaves(part)]
