"""vector.nearest: the label of the most similar examples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from flowcore.node import node
from flowcore.policies import Batch
from flowcore.vectors import BYTES_PER_FLOAT, Vector
from flownodes.extras import needing
from flownodes.fields import wrong_kind
from flownodes.single_blas import import_numpy
from flownodes.vector.vote import vote

if TYPE_CHECKING:
    from flownodes.vector.index import VectorIndex


@node(
    "vector.nearest",
    batch=Batch(max_items=256, linger=timedelta(milliseconds=1)),
    offload="thread",
    deterministic=True,
)
def nearest(
    vectors: Sequence[Vector],
    *,
    index: Annotated[str, Meta(min_length=1, description="file of labelled vectors")],
    k: Annotated[int, Meta(ge=1, le=1_000, description="neighbours that vote")] = 5,
) -> Sequence[dict[str, Any] | Exception]:
    """`{label, confidence, neighbours: [{label, score}, ...]}` for each vector, by its most similar examples.

    The nearer an example, the more its label counts; `confidence` is the winner's share of all, a measure to
    order by, not a probability.

    Emits when      the batch is searched; exact, computed in float32.
    Drops           nothing.
    Fails when      a vector has other dimensions than the index, is zero or not finite (it alone), or the
                    index cannot be read.
    Cost            O(rows x dimensions) a vector, in one multiplication a batch.
    Holds           the index, once per process: 4 bytes a number.
    """
    found = load_index(str(Path(index).resolve()))
    results: list[dict[str, Any] | Exception] = []
    queries: list[Vector] = []
    places: list[int] = []
    for place, vector in enumerate(vectors):
        fault = _fault(vector, found.dimensions)
        results.append(fault or {})
        if fault is None:
            queries.append(vector)
            places.append(place)
    for place, answer in zip(places, _search(queries, found, k), strict=True):
        results[place] = answer
    return results


def _fault(vector: object, dimensions: int) -> Exception | None:
    if isinstance(vector, bytes) and len(vector) == BYTES_PER_FLOAT * dimensions:
        return None
    return wrong_kind(
        vector,
        f"a vector of {dimensions} numbers ({BYTES_PER_FLOAT * dimensions} bytes)",
        "vector.nearest",
        "embed with the model the index was made with",
    )


def _search(queries: list[Vector], index: VectorIndex, k: int) -> list[dict[str, Any] | Exception]:
    """One answer a query; one the index refuses gets its error, and the others are searched again."""
    import numpy as np

    from flownodes.vector.index import QueryError

    rows = np.frombuffer(b"".join(queries), "<f4").reshape(len(queries), index.dimensions).astype(np.float32)
    refused: dict[int, Exception] = {}
    while len(refused) < len(queries):
        kept = [row for row in range(len(queries)) if row not in refused]
        try:
            ids, scores = index.nearest(rows[kept], k)
        except QueryError as error:
            if error.row is None:
                raise
            refused[kept[error.row]] = error
        else:
            answers = map(_answer, _labels(ids, index), scores.tolist())
            found = dict(zip(kept, answers, strict=True))
            return [refused.get(row) or found[row] for row in range(len(queries))]
    return [refused[row] for row in range(len(queries))]


def _labels(ids: Any, index: VectorIndex) -> list[list[str]]:
    return [[index.labels[row] for row in rows] for rows in ids.tolist()]


def _answer(labels: list[str], scores: list[float]) -> dict[str, Any]:
    label, confidence = vote(labels, scores)
    neighbours = [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    return {"label": label, "confidence": confidence, "neighbours": neighbours}


@lru_cache(maxsize=16)
def load_index(path: str) -> VectorIndex:
    """The index in that file, read once per process.

    Raises:
        MissingExtraError: numpy is not installed.
        VectorFileError: the file is missing, damaged or not one of vectors.
    """
    with needing(("numpy",), what="vector.nearest", install="uv pip install 'flowrx[embed]'"):
        import_numpy()
        from flownodes.vector.index import VectorIndex
    return VectorIndex.load(path)
