"""The bound on one output of a node: a larger one fails its row.

Owns: `OutputBound`, asked by every stage kind, and by the generated code of plain functions that have one.
Does not own: which bound holds for a node (flowruntime.compile.bounds), what is counted (flowcore.sizes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from flowcore.errors import LimitExceededError
from flowcore.sizes import size_up_to
from flowruntime.compile.bounds import DEFAULT_OUTPUT_BYTES, output_bound_of

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode

T = TypeVar("T")


class OutputBound:
    """`max_output_bytes` of one node.

    Args:
        node_id: named in the error.
        most: bytes one output may have.
    """

    __slots__ = ("most", "node_id")

    def __init__(self, node_id: str, most: int) -> None:
        self.node_id = node_id
        self.most = most

    def size(self, value: object) -> int:
        """The size of an output in bytes.

        Raises:
            LimitExceededError: it is larger than allowed.
        """
        size = size_up_to(value, self.most)
        if size > self.most:
            raise self.exceeded(size)
        return size

    def checked(self, value: T) -> T:
        """The output itself.

        Raises:
            LimitExceededError: it is larger than allowed.
        """
        self.size(value)
        return value

    def exceeded(self, size: int, what: str = "an output") -> LimitExceededError:
        """The failure of a row.

        Args:
            size: bytes counted until counting stopped.
            what: was too large.
        """
        return LimitExceededError(
            f"node {self.node_id!r} gave {what} of at least {size} bytes; {self.most} are allowed "
            "(max_output_bytes); raise it, or let the node give less at once",
            node=self.node_id,
            size_bytes=size,
            max_output_bytes=self.most,
        )


def bound_of(node: ResolvedNode) -> OutputBound:
    """The bound of a node with a stage of its own, which always has one."""
    return OutputBound(node.id, output_bound_of(node) or DEFAULT_OUTPUT_BYTES)
