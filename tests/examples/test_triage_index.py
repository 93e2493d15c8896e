"""The index of the triage demo is what its script makes, and finds the right label."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flownodes.vector.index import VectorIndex
from flownodes.vector.store import read_vectors
from flownodes.vector.vote import vote

TRIAGE = Path(__file__).parents[2] / "examples" / "triage"
TRAIN = TRIAGE / "data" / "banking77" / "train.csv"
EVERY = 20
"""The quick form takes each 20th query."""


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"triage_{name}", TRIAGE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = loaded("build_index")


@pytest.fixture(scope="module")
def index() -> VectorIndex:
    return VectorIndex.load(script.INDEX)


def test_the_index_says_what_it_was_made_of(index: VectorIndex) -> None:
    assert (index.header.rows, index.header.dimensions, len(index.header.labels)) == (10_003, 384, 77)
    assert index.header.notes["source_sha256"] == hashlib.sha256(TRAIN.read_bytes()).hexdigest()
    assert index.header.notes["model"] == "all-MiniLM-L6-v2"
    assert list(index.labels) == script.read_labelled(TRAIN).labels


def test_a_sample_of_the_rows_comes_out_the_same_again() -> None:
    stored = read_vectors(script.INDEX).vectors[::500]
    again = script.embed_all(script.read_labelled(TRAIN).texts[::500])
    assert (
        abs(stored - again).max() < 2**-12
    )  # a half-precision number below 0.5 is that exact, and none is larger


def test_a_sample_of_the_queries_finds_the_right_label(index: VectorIndex) -> None:
    """154 queries: their share lies within two standard errors (4.4 points) of the 92.05 % of all 3,080."""
    test = script.read_labelled(TRIAGE / "data" / "banking77" / "test.csv")
    vectors = script.embed_all(test.texts[::EVERY])
    assert script.accuracy(index, vectors, test.labels[::EVERY], 1) == pytest.approx(0.92, abs=0.044)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_all_queries_find_the_right_label_as_often_as_documented(index: VectorIndex) -> None:
    test = script.read_labelled(TRIAGE / "data" / "banking77" / "test.csv")
    vectors = script.embed_all(test.texts)
    assert script.accuracy(index, vectors, test.labels, 1) == pytest.approx(0.9205, abs=0.001)
    assert script.accuracy(index, vectors, test.labels, 5) == pytest.approx(0.9192, abs=0.001)
    ids, scores = index.nearest(vectors, 10)
    votes = [
        vote([index.labels[int(row)] for row in rows], [float(score) for score in found])
        for rows, found in zip(ids, scores, strict=True)
    ]
    right = [found.label == label for found, label in zip(votes, test.labels, strict=True)]
    sure = [hit for hit, found in zip(right, votes, strict=True) if found.confidence >= 0.6]
    assert sum(right) / len(right) == pytest.approx(0.925, abs=0.001)
    assert len(sure) / len(right) == pytest.approx(0.954, abs=0.002)
    assert sum(sure) / len(sure) == pytest.approx(0.950, abs=0.002)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_script_makes_the_shipped_file_again(tmp_path: Path) -> None:
    """Byte for byte where the processor rounds alike, else the same but for last bits."""
    script.build(tmp_path / "again.vectors")
    shipped, again = read_vectors(script.INDEX), read_vectors(tmp_path / "again.vectors")
    assert shipped.header.notes == again.header.notes
    assert (shipped.label_numbers == again.label_numbers).all()
    assert abs(shipped.vectors - again.vectors).max() < 2**-12
