"""Make `banking77.vectors`: every labelled query of train.csv as a vector, in half precision.

    python examples/triage/build_index.py            # write the file beside this script
    python examples/triage/build_index.py --check    # and measure it on test.csv; --check-only writes nothing

The file that is shipped was made by this script. Running it again gives the same file, but for the last bit
of a few numbers where another processor rounds otherwise.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flownodes.llm.providers.local import MODEL, embed_texts
from flownodes.single_blas import import_numpy

if TYPE_CHECKING:
    from flownodes.vector.index import VectorIndex
    from flownodes.vector.store import Array

HERE = Path(__file__).parent
DATA = HERE / "data" / "banking77"
INDEX = HERE / "banking77.vectors"
BATCH = 128


class Labelled(NamedTuple):
    """Texts and the label of each."""

    texts: list[str]
    labels: list[str]


def read_labelled(path: Path) -> Labelled:
    """The columns `text` and `category` of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Labelled([row["text"] for row in rows], [row["category"] for row in rows])


def embed_all(texts: Sequence[str]) -> Array:
    """Vectors of all texts, shape (n, 384), on all cores."""
    import_numpy()
    import numpy as np

    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        vectors = [vector for batch in pool.map(embed_texts, batches) for vector in batch]
    return np.frombuffer(b"".join(vectors), "<f4").reshape(len(texts), -1)


def build(path: Path, source: Path = DATA / "train.csv") -> None:
    """Embed `source` and write the index to `path`."""
    vectors, labelled = embed_all(read_labelled(source).texts), read_labelled(source)
    from flownodes.llm.providers.local.weights import SHA256
    from flownodes.vector.store import write_vectors

    notes = {
        "model": MODEL,
        "model_sha256": SHA256,
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    write_vectors(path, vectors, labelled.labels, notes)


def accuracy(index: VectorIndex, vectors: Array, labels: Sequence[str], k: int) -> float:
    """Share of `vectors` whose k nearest rows mostly have the right label; ties go to the nearer one."""
    right = 0
    found: list[list[int]] = index.nearest(vectors, k).ids.tolist()
    for label, ids in zip(labels, found, strict=True):
        right += Counter(index.labels[row] for row in ids).most_common(1)[0][0] == label
    return right / len(labels)


def check(path: Path) -> bool:
    """Print the accuracy over all of test.csv; whether it is what the demo promises."""
    test = read_labelled(DATA / "test.csv")
    vectors = embed_all(test.texts)
    from flownodes.vector.index import VectorIndex

    index = VectorIndex.load(path)
    shares = {k: accuracy(index, vectors, test.labels, k) for k in (1, 5)}
    for k, share in shares.items():
        print(f"{k}-nearest: {share:.2%} of {len(test.labels)} queries")
    return shares[1] >= 0.91  # noqa: PLR2004 - the demo's bar


def main() -> int:
    """Write the index, check it, or both."""
    parser = argparse.ArgumentParser(description="Make the index of labelled queries for the triage demo.")
    parser.add_argument("--out", type=Path, default=INDEX, help="file to write (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="measure the accuracy on test.csv afterwards")
    parser.add_argument(
        "--check-only", action="store_true", help="measure the file that is there, write nothing"
    )
    options = parser.parse_args()
    if not options.check_only:
        build(options.out)
        print(f"wrote {options.out} ({options.out.stat().st_size:,} bytes)")
    if options.check or options.check_only:
        return 0 if check(options.out) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
