"""Every codec and decoder that is given bytes or text from outside, each with its samples and its own error.

Owns: `SUBJECTS`.
Does not own: the search (harness), changing the samples (mutation).

Always holds: a subject refuses with the error its docstring names, or takes the payload; a decoder of rows
also keeps its promises about rows: errors are SourceErrors, positions grow, no byte is left out.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, AnyStr, Final

import msgspec
import zstandard

from connectors.files.bytes import decoded
from connectors.files.identity import FilePosition
from connectors.files.opening import Layout, OpenFile
from connectors.formats.csv_decoding import CsvDialect
from flowcore.durations import parse_duration, parse_size
from flowcore.errors import (
    ConfigError,
    ContractError,
    HttpBodyTooLargeError,
    HttpDecodingError,
    ParseError,
    PositionLostError,
    SourceError,
)
from flowcore.event_codec import CODEC, EventDecodeError
from flowcore.letter_log import LetterEdit, LetterMark, decode_entry, encode_entry
from flowcore.plain import from_plain, to_plain
from flowcore.states import Failed, Paused, Running
from flowcore.store_errors import StoreInputError, StoreUrlError
from flowcore.values import Json, ValueFormError
from flownodes.transform.json_parse import json_parse
from flowruntime.cli.failures import UsageError
from flowruntime.cli.letters import read_record
from flowruntime.compile.expressions.checked import read_checked
from flowruntime.compile.expressions.library import LibraryExpression
from flowruntime.flowcontrol.wire import from_wire, to_wire
from flowruntime.http.body import read_body
from flowruntime.state.positions import read_position, write_position
from flowruntime.state.store.codec import (
    UnreadableError,
    hash_of,
    read_cursor,
    read_state,
    read_value,
    read_workflow,
    write_cursor,
    write_state,
    write_value,
    write_workflow,
)
from flowruntime.state.store.rows import stored_wait, wait_row
from flowruntime.state.store.url import read_store_url
from flowruntime.testing.conformance.letters import ODD_VALUES, sample_letter
from flowruntime.testing.conformance.store_subject import a_wait, workflow
from tests.flowcore.test_events import ONE_OF_EACH
from tests.fuzz.harness import Subject
from tests.fuzz.mutation import INTERESTING_BYTES, INTERESTING_TEXTS, mutated

_MOST_DECODED: Final = 100_000
_LIMIT: Final = 200
"""`max_line_bytes`: small, so that lines that are too long come often."""


def refuses(decode: Callable[[Any], object], *errors: type[Exception]) -> Callable[[Any], bool]:
    """A check: the payload is taken, or refused with one of the errors, or by a value that is False."""

    def check(payload: object) -> bool:
        try:
            return decode(payload) is not False
        except errors:
            return False

    return check


def _subject(
    name: str, samples: Sequence[AnyStr], decode: Callable[[AnyStr], object], *errors: type[Exception]
) -> Subject:
    tokens: Any = INTERESTING_BYTES if isinstance(samples[0], bytes) else INTERESTING_TEXTS

    def payload(chance: random.Random) -> object:
        return mutated(chance, samples, tokens)

    return Subject(name=f"tests.fuzz.codecs:{name}", payload=payload, check=refuses(decode, *errors))


# --- rows of files ----------------------------------------------------------------------------------------

_JSONL: Final = (
    (
        b'{"id": 1, "text": "\xc3\xa4", "n": [1, 2.5, null, true]}\n{"id": 2}\n\n"x"\r\n1234567890123456789\n'
        b"[{}]\n"
    ),
    b'{"a": "\\ud800", "b": 1e5, "$$c": {"$bytes": "eA=="}, "d": {"$float": "nan"}}\n' + b"{}\n" * 9,
)
_JSON: Final = tuple(line for sample in _JSONL for line in sample.splitlines() if line)
_CSV: Final = (
    b'id,name,text\n1,"a ""b"" c",x\n2,"two\nlines",y\r\n3,,\n\n"4",b\n5,"open',
    b"a;b;c\n1;2;3\n'4;5';6;7\n" * 3,
    b'x\n"' + b"y" * 190 + b'"\n' + b"z" * 230 + b"\nend",
)
_LINES: Final = (
    b"one\ntwo\r\n\xc3\xa4\xe2\x82\xac\n\n" + b"long " * 60 + b"\nend",
    b"\xef\xbb\xbfa\n\x00b\n\xff\xfe\n",
)


def _rows(layout: Layout) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        decoder = layout.decoder("f")
        size = 1 + zlib.crc32(data) % 64
        blocks = [decoder.feed(data[at : at + size]) for at in range(0, len(data), size)]
        while decoder.has_more:
            blocks.append(decoder.feed(b""))
        while (block := decoder.end()).values:
            blocks.append(block)
        ends = [end for block in blocks for end in block.ends]
        if any(len(block.values) != len(block.ends) for block in blocks):
            raise AssertionError("a row without its position")
        if ends != sorted(set(ends)) or (ends and ends[-1] > len(data)):
            raise AssertionError(f"positions do not grow, or are behind the end: {ends}")
        for block in blocks:
            for error in block.errors.values():
                if not isinstance(error, SourceError):
                    raise TypeError("an error row has another error") from error
        return not any(block.errors for block in blocks)

    return decode


def _layout(format: Any, encoding: str = "utf-8", **fields: Any) -> Layout:
    given: dict[str, Any] = {"dialect": CsvDialect(), "lossless": False, **fields}
    return Layout(format=format, encoding=encoding, max_line_bytes=_LIMIT, **given)


def _row_subjects() -> list[Subject]:
    quoted = CsvDialect(delimiter=";", quote="'", header=False, columns=("a", "b"), fill=True)
    layouts = {
        "jsonl": (_JSONL, _layout("jsonl")),
        "jsonl_lossless": (_JSONL, _layout("jsonl", lossless=True)),
        "jsonl_latin_1": (_JSONL, _layout("jsonl", "latin-1")),
        "csv": (_CSV, _layout("csv")),
        "csv_quoted": (_CSV, _layout("csv", "cp1252", dialect=quoted)),
        "csv_lists": (_CSV, _layout("csv", dialect=CsvDialect(header=False))),
        "lines": (_LINES, _layout("lines")),
        "lines_ascii": (_LINES, _layout("lines", "ascii")),
        "lines_shift_jis": (_LINES, _layout("lines", "shift_jis")),
    }
    return [
        _subject(name, samples, _rows(layout), SourceError) for name, (samples, layout) in layouts.items()
    ]


# --- bytes of files and answers ---------------------------------------------------------------------------

_PLAIN: Final = b"".join(b'{"n": %d}\n' % number for number in range(60)) + os.urandom(0)


def _bytes_of_file(path: str, encoding: str) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        stream = decoded(io.BytesIO(data), path, encoding=encoding)
        size = 1 + zlib.crc32(data) % 5_000
        total = 0
        try:
            while chunk := stream.read(size):
                if len(chunk) > size:
                    raise AssertionError(f"{len(chunk)} bytes where {size} were asked for")
                total += len(chunk)
                if total > _MOST_DECODED:
                    break
        finally:
            stream.close()
        return total

    return decode


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    size = 1 + zlib.crc32(data) % 300
    for at in range(0, len(data), size):
        yield data[at : at + size]


def _body(encoding: str) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        reading = read_body(_pieces(data), encoding, max_bytes=20_000, method="GET", url="http://a")
        try:
            reading.send(None)
        except StopIteration as ended:
            if len(ended.value) > 20_000:
                raise AssertionError("more than max_bytes came out") from None
            return ended.value
        raise AssertionError("it waits")

    return decode


def _byte_subjects() -> list[Subject]:
    bomb = gzip.compress(b"\0" * (1 << 18))
    zipped = (gzip.compress(_PLAIN), gzip.compress(_PLAIN) + gzip.compress(b"x\n"), bomb)
    compressor = zstandard.ZstdCompressor()
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    zstd = (compressor.compress(_PLAIN), compressor.compress(_PLAIN) + skippable + compressor.compress(b"x"),
            compressor.compress(b"\0" * (1 << 18)))  # fmt: skip
    deflated = (zlib.compress(_PLAIN), zlib.compress(b"\0" * 30_000))
    wide = ("ä\n\U0001f600 text\n" * 6).encode
    refused = (HttpDecodingError, HttpBodyTooLargeError)
    return [
        _subject("gzip", zipped, _bytes_of_file("f.gz", "utf-8"), SourceError),
        _subject("zstd", zstd, _bytes_of_file("f.zst", "utf-8"), SourceError),
        _subject("utf_16", (wide("utf-16"), wide("utf-16-le")), _bytes_of_file("f", "utf-16"), SourceError),
        _subject("utf_32", (wide("utf-32"),), _bytes_of_file("f", "utf-32"), SourceError),
        _subject("utf_7", (wide("utf-7"),), _bytes_of_file("f", "utf-7"), SourceError),
        _subject("http_gzip", zipped, _body("gzip"), *refused),
        _subject("http_deflate", deflated, _body("deflate"), *refused),
    ]


# --- positions --------------------------------------------------------------------------------------------

_FOLDER: Final = tempfile.TemporaryDirectory(prefix="fuzz")
_FILE: Final = Path(_FOLDER.name) / "f.csv"
_FILE.write_bytes(b"id,text\n" + b"".join(b"%d,some text\n" % number for number in range(60)))


def _resume(data: bytes) -> object:
    """As a file source does with what was kept."""
    position = FilePosition.of(read_position(data), path="f.csv")
    file = OpenFile("f.csv", str(_FILE), _layout("csv"), position)
    try:
        return file.read()
    finally:
        file.close()


def _positions() -> tuple[bytes, ...]:
    file = OpenFile("f.csv", str(_FILE), _layout("csv"), None)
    try:
        kept = [file.position().plain()]
        file.feed(file.read(), first=True)
        kept.append(file.position().plain())
    finally:
        file.close()
    kept.append(FilePosition.before(inode=7, since=5).plain())
    return tuple(write_position(each) for each in kept)


# --- what is kept, sent and typed -------------------------------------------------------------------------

_WORKFLOW_TEXT, _ = write_workflow(workflow())
_WAIT: Final = wait_row(a_wait())


def _wait_column(chance: random.Random) -> list[object]:
    """A row of which one column was changed."""
    row = list(_WAIT)
    at = chance.randrange(len(row))
    old = row[at]
    if isinstance(old, str):
        row[at] = _as_a_database_gives_it(mutated(chance, [old], INTERESTING_TEXTS))
    else:
        row[at] = chance.choice([None, 0, -1, 1.5, "", b"", chance.getrandbits(32)])
    return row


def _wait_as_it_was(row: list[object]) -> bool:
    """The wait that was written, or an error: what was changed is never read as something else."""
    try:
        found = stored_wait(row)
    except UnreadableError:
        return False
    if found != stored_wait(_WAIT):
        raise AssertionError(f"another wait was read: {found}")
    return True


def _kept_subjects() -> list[Subject]:
    values = [to_plain(value) for value in ODD_VALUES]
    letters = [sample_letter(n, value=value, record=value) for n, value in enumerate(values)]
    changes = [LetterEdit(id="a", record={"x": 1}, at=1.5), LetterMark(id="a", state="redriven", at=2.0)]
    entries = [encode_entry(entry) for entry in (*letters, *changes)]
    states = (Running(), Paused(reason="w"), Failed(error={"kind": "E", "message": "m"}))
    texts = [write_value(value, what="v") for value in ODD_VALUES]
    cursors = (write_cursor("waits", 1.5, "id"), write_cursor("executions", 2.0, "x"))
    wires = [to_wire(value) for value in (*ODD_VALUES, (1, {2}), ValueError("x"), sample_letter(1))]
    checked = [
        LibraryExpression(text, frozenset({"value"}))._program.serialize()
        for text in ("value.a + 1 > 2 && value.b in ['x', \"y\"]",
        "has(value.x) ? [1u, {'a': 1.5}] : value.l.map(i, i)")
    ]  # fmt: skip
    urls = ("sqlite:.flow/a.sqlite", "postgresql://u:p@h:5/db?sslmode=require&pool=3", "memory:")
    return [
        _subject("event_json", [CODEC.encode_json(each) for each in ONE_OF_EACH], CODEC.decode_json,
        EventDecodeError),
        _subject("event_msgpack", [CODEC.encode_msgpack(each) for each in ONE_OF_EACH],
        CODEC.decode_msgpack, EventDecodeError),
        _subject("letters", entries, decode_entry, ParseError),
        _subject("position", _positions(), read_position, SourceError),
        _subject("resume", _positions(), _resume, PositionLostError, SourceError),
        _subject("wire", wires, from_wire, ContractError),
        _subject("store_value", texts, read_value, UnreadableError),
        _subject("store_state", [write_state(state) for state in states], read_state, UnreadableError),
        _subject("store_workflow", (_WORKFLOW_TEXT,), _workflow_of, UnreadableError),
        _subject("store_cursor", cursors, lambda text: read_cursor(text, "waits", float, str),
        StoreInputError),
        Subject(name="tests.fuzz.codecs:store_row", payload=_wait_column, check=_wait_as_it_was),
        _subject("checked", checked, read_checked, ValueError),
        _subject("json_value", _JSON, lambda data: Json(data).parse(), ValueFormError),
        _subject("plain", [json.dumps(value) for value in values], _plain, ValueFormError),
        _subject("json_parse", _JSON, json_parse, ParseError),
        _subject("record", texts, lambda text: read_record(text, where="--record"), UsageError),
        _subject("duration", ("1h", "2.5s", "200ms", "1d 2h"), parse_duration, ConfigError, ValueError),
        _subject("size", ("1KiB", "2.5MB", "200"), parse_size, ConfigError, ValueError),
        _subject("store_url", urls, read_store_url, StoreUrlError),
    ]  # fmt: skip


def _workflow_of(text: str) -> object:
    text = _as_a_database_gives_it(text)
    return read_workflow(text, hash_of(text.encode()))


def _as_a_database_gives_it(text: str) -> str:
    """Without lone surrogates: no database keeps such a text."""
    return text.encode("utf-8", "replace").decode()


def _plain(text: str) -> object:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return from_plain(data)


ROWS: Final = tuple(_row_subjects())
BYTES: Final = tuple(_byte_subjects())
KEPT: Final = tuple(_kept_subjects())
SUBJECTS: Final = (*ROWS, *BYTES, *KEPT)
