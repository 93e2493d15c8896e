"""vector.nearest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowcore.errors import WrongKindError
from flowcore.vectors import vector_of
from flownodes.vector.index import QueryError
from flownodes.vector.nearest import load_index, nearest
from flownodes.vector.store import VectorFileError, write_vectors


@pytest.fixture
def index(tmp_path: Path) -> str:
    path = tmp_path / "axes.vectors"
    write_vectors(path, np.array([[1, 0], [0, 1], [0.9, 0.1]], np.float32), ["x", "y", "x"], {})
    return str(path)


def test_the_nearest_examples_name_the_label(index: str) -> None:
    results: list[Any] = list(nearest([vector_of([2.0, 0.1]), vector_of([0.0, 5.0])], index=index, k=2))
    assert [result["label"] for result in results] == ["x", "y"]
    assert [neighbour["label"] for neighbour in results[0]["neighbours"]] == ["x", "x"]
    assert results[0]["confidence"] == 1.0
    assert 0.9 < results[1]["confidence"] < 1.0
    assert results[1]["neighbours"][0]["score"] == pytest.approx(1.0)


def test_a_bad_vector_fails_alone(index: str) -> None:
    good = vector_of([1.0, 0.0])
    bad = [vector_of([1.0]), "text", None, vector_of([0.0, 0.0]), np.array([np.nan, 1], "<f4").tobytes()]
    results: list[Any] = list(nearest([good, *bad, good], index=index, k=1))  # pyright: ignore[reportArgumentType] - on purpose
    assert [type(result) for result in results] == [
        dict, WrongKindError, WrongKindError, WrongKindError, QueryError, QueryError, dict,
    ]  # fmt: skip
    assert results[0] == results[-1]


def test_nothing_asked_is_nothing_answered(index: str) -> None:
    assert nearest([], index=index) == []
    assert [type(result) for result in nearest([vector_of([0.0, 0.0])], index=index, k=1)] == [QueryError]


def test_what_holds_for_all_vectors_fails_the_batch(index: str, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="k=9"):
        nearest([vector_of([1.0, 0.0])], index=index, k=9)
    with pytest.raises(VectorFileError, match=r"none\.vectors"):
        nearest([vector_of([1.0, 0.0])], index=str(tmp_path / "none.vectors"))


def test_an_index_is_read_once(index: str) -> None:
    assert load_index(index) is load_index(index)
