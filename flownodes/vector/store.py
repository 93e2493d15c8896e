"""The file of labelled vectors: half precision, self-describing, checked.

Owns: the format, writing it and reading it.
Does not own: searching (index) or making vectors (an embedding provider).

Always holds: one set of vectors, labels and notes gives the same bytes on every machine; a file that is cut,
changed or of another kind is refused; nothing is half-written, the name appears with the content. No pickle.

    bytes 0-7       FLOWVEC1
    bytes 8-11      length of the header, uint32
    header          JSON: rows, dimensions, labels (the distinct ones), notes
    payload         label number of each row, uint16; then the rows, float16
    last 32 bytes   SHA-256 of all before; numbers are little-endian
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from flowcore.errors import BuildError
from flowcore.findings import shown

Array: TypeAlias = NDArray[np.float32]

MAGIC: Final = b"FLOWVEC1"
MAX_LABELS: Final = 2**16
_LENGTH_BYTES: Final = 4
_DIGEST_BYTES: Final = 32
_MAX_HEADER_BYTES: Final = 16 * 1024 * 1024


class VectorFileError(BuildError, ValueError):
    """A file of vectors is missing, damaged, or not one: attributes `path`, `reason`."""

    path: str
    reason: str


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says about itself."""

    rows: int
    dimensions: int
    labels: tuple[str, ...]
    """The distinct labels, in order of first appearance."""
    notes: dict[str, str] = {}
    """Free facts of the writer, such as the model and the SHA-256 of what was embedded."""


class Stored(NamedTuple):
    """What a file holds."""

    header: Header
    label_numbers: NDArray[np.uint16]
    """Shape (rows,): positions in `header.labels`."""
    vectors: Array
    """Shape (rows, dimensions), as stored: half precision, widened."""


def write_vectors(path: Path, vectors: Array, labels: Sequence[str], notes: Mapping[str, str]) -> Header:
    """Write `vectors`, shape (n, d), rounded to half precision, with one label per row.

    Raises:
        VectorFileError: nothing to write, a label count that differs, or a number half precision cannot hold.
        OSError: the file cannot be written; the previous one, if any, is untouched.
    """
    if vectors.ndim != 2 or not vectors.size:  # noqa: PLR2004 - rows and columns
        raise _bad(path, f"needs rows and columns, got shape {vectors.shape}; nothing was written")
    if len(labels) != len(vectors):
        raise _bad(path, f"has {len(vectors)} vectors for {len(labels)} labels; nothing was written")
    distinct = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    if len(distinct) > MAX_LABELS:
        raise _bad(
            path, f"has {len(distinct)} different labels, at most {MAX_LABELS} fit; nothing was written"
        )
    with np.errstate(over="ignore"):
        halves = vectors.astype("<f2")
    if not np.isfinite(halves).all():
        raise _bad(path, "holds a number that is not finite in half precision; nothing was written")
    payload = np.array([distinct[label] for label in labels], "<u2").tobytes() + halves.tobytes()
    header = Header(
        rows=vectors.shape[0],
        dimensions=vectors.shape[1],
        labels=tuple(distinct),
        notes=dict(notes),
    )
    encoded = msgspec.json.encode(header)
    whole = MAGIC + len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded + payload
    _replace(path, whole + hashlib.sha256(whole).digest())
    return header


def read_vectors(path: Path) -> Stored:
    """Read a file and check all of it.

    Raises:
        VectorFileError: it is missing, not such a file, cut short, too long, or its content was changed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _bad(path, f"cannot be read: {error}") from error
    header, payload = _split(path, content)
    expected = 2 * header.rows * (1 + header.dimensions)
    if len(payload) != expected:
        raise _bad(path, f"has {len(payload)} bytes after its header, {expected} are declared; copy it again")
    numbers = np.frombuffer(payload, "<u2", count=header.rows).astype(np.uint16)
    if int(numbers.max()) >= len(header.labels):
        raise _bad(path, f"names label {int(numbers.max())} of {len(header.labels)}; write it again")
    halves = np.frombuffer(payload, "<f2", offset=2 * header.rows)
    return Stored(header, numbers, halves.astype(np.float32).reshape(header.rows, header.dimensions))


def _split(path: Path, content: bytes) -> tuple[Header, bytes]:
    if content[: len(MAGIC)] != MAGIC:
        raise _bad(path, f"is no file of vectors: it begins with {shown(content[:8])}, not {MAGIC!r}")
    content, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    found = hashlib.sha256(content).digest()
    if found != digest:
        raise _bad(path, f"was cut or changed: SHA-256 {found.hex()}, it says {digest.hex()}; copy it again")
    start = len(MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if length > min(_MAX_HEADER_BYTES, len(content) - start):
        raise _bad(path, f"is cut short: a header of {length} bytes is declared; copy it again")
    try:
        header = msgspec.json.decode(content[start : start + length], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(path, f"has a damaged header: {error}; copy it again") from error
    if header.rows < 1 or header.dimensions < 1:
        raise _bad(path, f"declares {header.rows} rows of {header.dimensions} numbers; write it again")
    return header, content[start + length :]


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _bad(path: Path, reason: str) -> VectorFileError:
    return VectorFileError(f"vector file {str(path)!r} {reason}", path=str(path), reason=reason)
