"""Exact nearest neighbours by cosine over labelled vectors held in memory.

Owns: the search and what is refused as a query.
Does not own: the file (store), making vectors (an embedding provider), or what a label means to a workflow.

Always holds: the answer is exact, best first, equal scores by lower row; computed in float32 whatever the
file holds. An index is never written to: threads may share it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import RunError
from flownodes.vector.store import Array, Header, Stored, VectorFileError, read_vectors

QUERIES_AT_ONCE: Final = 256
"""Bounds the scores held: 256 x rows x 4 bytes (10 MB for 10,000 rows)."""

_SCANNED: Final = 16
"""Up to this many neighbours are found by repeated maximum, which beats sorting."""


class QueryError(RunError, ValueError):
    """A query vector has no neighbours: attributes `row` (None: all of them), `reason`."""

    row: int | None
    reason: str


class Neighbours(NamedTuple):
    """The answer for n queries."""

    ids: NDArray[np.intp]
    """Shape (n, k): rows of the index, best first."""
    scores: Array
    """Shape (n, k): cosines, in [-1, 1] up to rounding."""


class VectorIndex:
    """Labelled vectors, searchable.

    Args:
        stored: what a file holds.
        path: where from, for messages.

    Raises:
        VectorFileError: a row is zero, so it has no direction.
    """

    def __init__(self, stored: Stored, *, path: Path) -> None:
        lengths = _lengths(stored.vectors)
        if not lengths.all():
            reason = f"row {int(lengths.argmin())} is the zero vector; write the file again without it"
            raise VectorFileError(f"vector file {str(path)!r}: {reason}", path=str(path), reason=reason)
        self.header: Final[Header] = stored.header
        numbers: list[int] = stored.label_numbers.tolist()
        self.labels: Final[tuple[str, ...]] = tuple(stored.header.labels[number] for number in numbers)
        """One label per row."""
        self._columns: Final[Array] = np.ascontiguousarray((stored.vectors / lengths[:, None]).T)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file that `write_vectors` made.

        Raises:
            VectorFileError: it is missing, damaged, not such a file, or holds a zero vector.
        """
        return cls(read_vectors(Path(path)), path=Path(path))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dimensions(self) -> int:
        """Numbers per vector."""
        return self.header.dimensions

    def nearest(self, queries: Array, k: int) -> Neighbours:
        """The k rows most similar to each query.

        Args:
            queries: shape (n, dimensions), of any length; n may be 0.
            k: 1 to the number of rows.

        Raises:
            QueryError: wrong shape, k out of range, or a query zero or not finite; nothing is answered.

        Cost: O(n x rows x dimensions) in one multiplication.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:  # noqa: PLR2004 - rows and columns
            shape = f"queries have shape {queries.shape}, the index needs (n, {self.dimensions})"
            reason = f"{shape}; embed them with the model the index was made with"
            raise QueryError(reason, row=None, reason=reason)
        if not 1 <= k <= len(self):
            reason = f"k={k} neighbours asked of an index of {len(self)} rows; give 1 to {len(self)}"
            raise QueryError(reason, row=None, reason=reason)
        units = _units(queries)
        answer = Neighbours(np.empty((len(units), k), np.intp), np.empty((len(units), k), np.float32))
        for start in range(0, len(units), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            _best(units[part] @ self._columns, answer.ids[part], answer.scores[part])
        return answer


def _units(queries: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = _lengths(queries)
    for bad, what in ((~np.isfinite(lengths), "not finite"), (lengths == 0, "the zero vector")):
        if bad.any():
            row = int(bad.argmax())
            reason = f"query {row} is {what}, so it has no neighbours; drop or repair it before the search"
            raise QueryError(reason, row=row, reason=reason)
    return (queries / lengths[:, None]).astype(np.float32, copy=False)


def _lengths(rows: Array) -> NDArray[np.float32]:
    squares: Array = np.einsum("ij,ij->i", rows, rows)
    return np.sqrt(squares)


def _best(scores: Array, ids: NDArray[np.intp], best: Array) -> None:
    """Fill `ids` and `best` from `scores`, shape (n, rows), which is overwritten."""
    k = ids.shape[1]
    if k > _SCANNED:
        ids[...] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best[...] = np.take_along_axis(scores, ids, axis=1)
        return
    every = np.arange(len(scores))
    for place in range(k):
        ids[:, place] = scores.argmax(axis=1)
        best[:, place] = scores[every, ids[:, place]]
        scores[every, ids[:, place]] = -np.inf
