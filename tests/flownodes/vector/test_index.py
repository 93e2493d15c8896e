"""The file of labelled vectors and the exact search over it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flownodes.vector.index import QueryError, VectorIndex
from flownodes.vector.store import Array, Stored, VectorFileError, read_vectors, write_vectors

AXES: Array = np.eye(3, dtype=np.float32)


@pytest.fixture
def axes(tmp_path: Path) -> Path:
    path = tmp_path / "axes.vectors"
    write_vectors(path, AXES, ["x", "y", "x"], {"model": "none"})
    return path


def index_of(vectors: Array, labels: list[str], folder: Path) -> VectorIndex:
    write_vectors(folder / "some.vectors", vectors, labels, {})
    return VectorIndex.load(folder / "some.vectors")


def test_a_file_holds_what_was_written_to_half_precision(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((50, 7)).astype(np.float32)
    labels = [f"l{row % 5}" for row in range(50)]
    write_vectors(tmp_path / "v", vectors, labels, {"source": "test"})
    header, numbers, found = read_vectors(tmp_path / "v")
    assert (header.rows, header.dimensions, header.notes) == (50, 7, {"source": "test"})
    assert [header.labels[number] for number in numbers] == labels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors.astype(np.float16).astype(np.float32))


def test_the_same_content_gives_the_same_bytes_and_leaves_no_draft(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_vectors(tmp_path / name, AXES, ["x", "y", "z"], {"b": "2", "a": "1"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_failed_write_leaves_the_previous_file(axes: Path) -> None:
    before = axes.read_bytes()
    with pytest.raises(VectorFileError, match="not finite in half precision"):
        write_vectors(axes, AXES * np.float32(1e6), ["x", "y", "z"], {})
    assert axes.read_bytes() == before


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (AXES, ["x"], "3 vectors for 1 labels"),
        (np.empty((0, 3), np.float32), [], "needs rows and columns"),
        (np.ones(3, np.float32), ["x"] * 3, "needs rows and columns"),
    ],
)
def test_what_is_no_table_of_labelled_vectors_is_not_written(
    vectors: Array, labels: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(VectorFileError, match=message):
        write_vectors(tmp_path / "v", vectors, labels, {})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match=r"nowhere\.vectors.*cannot be read"):
        VectorIndex.load(tmp_path / "nowhere.vectors")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(VectorFileError, match="is no file of vectors"):
        VectorIndex.load(tmp_path / "v")


@settings(max_examples=200)
@given(data=st.data())
def test_no_cut_no_flip_and_no_tail_is_ever_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A wrong vector found in silence would be worse than no answer."""
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "v"
    write_vectors(path, AXES, ["x", "y", "x"], {})
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "tail"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    match kind:
        case "cut":
            damaged = whole[:at]
        case "flip":
            damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
        case _:
            damaged = whole + b"\x00" * (at + 1)
    path.write_bytes(damaged)
    with pytest.raises(VectorFileError, match=f"vector file {str(path)!r} "):
        read_vectors(path)


def test_a_zero_vector_in_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match="row 1 is the zero vector"):
        index_of(np.array([[1, 0], [0, 0]], np.float32), ["a", "b"], tmp_path)


def test_the_nearest_comes_first_and_equals_by_row(axes: Path) -> None:
    index = VectorIndex.load(axes)
    ids, scores = index.nearest(np.array([[0, 5, 0], [2, 0, 2]], np.float32), 3)
    assert ids.tolist() == [[1, 0, 2], [0, 2, 1]]
    np.testing.assert_allclose(scores, [[1, 0, 0], [0.5**0.5, 0.5**0.5, 0]], atol=1e-6)
    assert index.labels == ("x", "y", "x")
    assert (len(index), index.dimensions) == (3, 3)


@pytest.mark.parametrize("k", [1, 5, 16, 17, 300])
def test_it_finds_what_sorting_everything_finds(k: int, tmp_path: Path) -> None:
    random = np.random.default_rng(k)
    stored = random.integers(-3, 4, (300, 6)).astype(np.float32)  # small integers: many equal scores
    stored[:, 0] += 4
    queries = random.integers(-3, 4, (600, 6)).astype(np.float32)  # more than QUERIES_AT_ONCE
    queries[:, 1] += 4
    ids, scores = index_of(stored, ["l"] * 300, tmp_path).nearest(queries, k)
    units = stored.astype(np.float64) / np.linalg.norm(stored.astype(np.float64), axis=1)[:, None]
    cosines = (queries / np.linalg.norm(queries, axis=1)[:, None]).astype(np.float64) @ units.T
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, ids, axis=1), scores, atol=1e-6)
    assert all(len(set(row)) == k for row in ids.tolist())


def test_no_query_gives_no_answer(axes: Path) -> None:
    assert VectorIndex.load(axes).nearest(np.empty((0, 3), np.float32), 2).ids.shape == (0, 2)


@pytest.mark.parametrize(
    ("queries", "k", "message", "row"),
    [
        (np.zeros((1, 3), np.float32), 1, "query 0 is the zero vector", 0),
        (np.array([[1, 0, 0], [np.nan, 0, 0]], np.float32), 1, "query 1 is not finite", 1),
        (np.ones((1, 4), np.float32), 1, r"shape \(1, 4\).*\(n, 3\)", None),
        (np.ones(3, np.float32), 1, r"shape \(3,\)", None),
        (AXES, 0, "k=0 neighbours", None),
        (AXES, 4, "k=4 neighbours asked of an index of 3 rows", None),
    ],
)
def test_a_query_without_an_answer_is_an_error(
    queries: Array, k: int, message: str, row: int | None, axes: Path
) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        VectorIndex.load(axes).nearest(queries, k)
    assert caught.value.row == row


def test_searching_changes_neither_the_index_nor_the_queries(axes: Path) -> None:
    stored: Stored = read_vectors(axes)
    index = VectorIndex(stored, path=axes)
    queries = AXES * 2
    first = index.nearest(queries, 2)
    second = index.nearest(queries, 2)
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(queries, AXES * 2)
