"""A file opened at a position: its bytes, its decoder, its identity, and the checks that make resuming safe.

Owns: `Layout` (how a file is read), `OpenFile`, the translation of operating system errors.
Does not own: which file comes next (files.whole, files.tail), framing and decoding (connectors.formats).

Always holds: an `OpenFile` begins exactly at the position asked for, or opening raised PositionLostError.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO, Final, Literal, cast

import msgspec

from connectors.files.bytes import ByteStream, PlainBytes, decoded, is_wide
from connectors.files.identity import FileIdentity, FilePosition, identify
from connectors.formats.csv_decoding import CsvDecoder, CsvDialect
from connectors.formats.decoding import JsonLinesDecoder, LinesDecoder
from connectors.formats.framing import Block
from flowcore.errors import ConfigError, PositionLostError, SourceError
from flowcore.findings import shown

CHUNK_BYTES: Final = 1 << 18
Format = Literal["jsonl", "csv", "lines"]
EXTENSIONS: Final[dict[str, Format]] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".txt": "lines", ".log": "lines",
}  # fmt: skip
_COMPRESSION: Final = (".gz", ".zst")
_BOM: Final = b"\xef\xbb\xbf"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")


def format_of(path: str, declared: Format | None) -> Format:
    """The declared format, or the one the extension names; `.gz` and `.zst` are looked through.

    Raises:
        ConfigError: neither says.
    """
    if declared is not None:
        return declared
    stem, extension = os.path.splitext(path)  # noqa: PTH122 - paths are text throughout
    if extension.lower() in _COMPRESSION:
        extension = os.path.splitext(stem)[1]  # noqa: PTH122 - as above
    found = EXTENSIONS.get(extension.lower())
    if found is None:
        known = ", ".join(EXTENSIONS)
        raise ConfigError(
            f"the extension of {path!r} names no format (known: {known}); set format to jsonl, csv or lines",
            value=path,
        )
    return found


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How the bytes of a file become rows."""

    format: Format
    encoding: str
    max_line_bytes: int
    dialect: CsvDialect
    lossless: bool
    origin: str | None = None
    """The field each row gets: where it stands."""

    def decoder(
        self, where: str, *, offset: int = 0, line: int = 0, columns: Sequence[str] | None = None
    ) -> LinesDecoder | JsonLinesDecoder | CsvDecoder:
        encoding = "utf-8" if is_wide(self.encoding) else self.encoding
        limit = self.max_line_bytes
        if self.format == "csv":
            return CsvDecoder(
                where=where, max_line_bytes=limit, dialect=self.dialect, encoding=encoding,
                offset=offset, line=line, columns=columns,
            )  # fmt: skip
        if self.format == "lines":
            return LinesDecoder(
                where=where, max_line_bytes=limit, encoding=encoding, offset=offset, line=line
            )
        return JsonLinesDecoder(
            where=where,
            max_line_bytes=limit,
            encoding=encoding,
            offset=offset,
            line=line,
            lossless=self.lossless,
        )


@contextmanager
def translated(path: str) -> Generator[None]:
    """Errors of the operating system as SourceError that names the file."""
    try:
        yield
    except SourceError:
        raise
    except OSError as fault:
        raise SourceError(
            f"cannot read {path!r}: {fault.strerror or fault}",
            path=path,
            reason=errno.errorcode.get(fault.errno or 0),
        ) from fault


class OpenFile:
    """One file being read from some position on.

    Holds: what its decoder holds of an unfinished row; no rows.
    """

    def __init__(self, path: str, absolute: str, layout: Layout, resume: FilePosition | None) -> None:
        """`path` is what messages and positions call the file, `absolute` where it is.

        Raises:
            PositionLostError: the file does not hold the position. FileNotFoundError and other OSErrors:
            as `open`.
        """
        self.path = path
        self._absolute = absolute
        self._layout = layout
        file = _open_regular(path, absolute)
        try:
            self.identity: FileIdentity = identify(file.fileno())
            self._file = file
            self._stream: ByteStream = decoded(file, absolute, encoding=layout.encoding)
            self.line = 0
            self.row_end = 0
            """Offset after the last row read."""
            if resume is None or resume.offset == 0:
                self._decoder = layout.decoder(path)
            else:
                self._resume(resume)
        except BaseException:
            file.close()
            raise

    @property
    def offset(self) -> int:
        return self._stream.offset

    @property
    def is_plain(self) -> bool:
        """Offsets are those of the file itself: no compression, no wide encoding."""
        return isinstance(self._stream, PlainBytes)

    def read(self) -> bytes:
        """The next bytes, at most `CHUNK_BYTES`; empty at the present end."""
        return self._stream.read(CHUNK_BYTES)

    def feed(self, chunk: bytes, *, first: bool) -> Block:
        """The rows that `chunk` completes; `first`: it is the beginning of the file."""
        if first:
            chunk = self._without_bom(chunk)
        return self._note(self._decoder.feed(chunk))

    def end(self) -> Block:
        """The last row when it has no newline."""
        return self._note(self._decoder.end())

    def position(self) -> FilePosition:
        """Where the next row begins, with all that was seen of the file's first bytes."""
        identity = self.identity
        seen = len(identity.head)
        return FilePosition(
            offset=self.row_end,
            line=self.line,
            inode=identity.inode,
            head=identity.digest(seen),
            head_bytes=seen,
        )

    def status(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def look_again(self) -> bool:
        """Read the first bytes again; False: they are no longer what they were."""
        fresh = identify(self._file.fileno())
        same = fresh.head.startswith(self.identity.head)
        if same and len(fresh.head) > len(self.identity.head):
            self.identity = fresh
        return same

    def close(self) -> None:
        self._stream.close()

    def _note(self, block: Block) -> Block:
        if block.values:
            self.row_end, self.line = block.ends[-1], block.lines[-1]
        if self._layout.origin is not None:
            add_origin(block, self.path, self._layout.origin)
        return block

    def _without_bom(self, chunk: bytes) -> bytes:
        if self._layout.encoding != "utf-8":
            return chunk
        if chunk.startswith(_WIDE_BOMS):
            raise SourceError(
                f"{self.path}: begins with the byte order mark of UTF-16, the encoding is "
                f"{self._layout.encoding!r}; set encoding: utf-16",
                path=self.path,
            )
        if not chunk.startswith(_BOM):
            return chunk
        self._decoder.skip(len(_BOM))
        return chunk[len(_BOM) :]

    def _resume(self, resume: FilePosition) -> None:
        if not self.identity.holds(resume):
            raise lost(self.path, resume, "the file begins differently: it was replaced or rewritten")
        columns = self._columns()
        self._file.seek(0)
        self._stream = decoded(self._file, self._absolute, encoding=self._layout.encoding)
        if not self._stream.skip_to(resume.offset - 1) or not (before := self._stream.read(1)):
            raise lost(self.path, resume, f"the file ends at byte {self._stream.offset}: it was truncated")
        if before != b"\n":
            self._expect_line_end(resume)
        self._decoder = self._layout.decoder(
            self.path, offset=self._stream.offset, line=resume.line, columns=columns
        )
        self.row_end, self.line = self._stream.offset, resume.line

    def _columns(self) -> Sequence[str] | None:
        """The header of a CSV file, read again from its beginning."""
        if self._layout.format != "csv" or not self._layout.dialect.header:
            return None
        decoder = cast("CsvDecoder", self._layout.decoder(self.path))
        self._decoder = decoder
        first = True
        while not decoder.ready:
            chunk = self.read()
            self.feed(chunk, first=first) if chunk else self.end()
            if not chunk:
                break
            first = False
        return decoder.columns

    def _expect_line_end(self, resume: FilePosition) -> None:
        """The row before had no newline when it was read; only a newline may have followed."""
        following = self._stream.read(1)
        if following == b"\r":
            following = self._stream.read(1)
        if following not in (b"\n", b""):
            raise lost(
                self.path,
                resume,
                f"line {resume.line} had no newline when it was read and has been continued since",
            )


def add_origin(block: Block, path: str, field: str) -> None:
    """Put `{path, line}` into every row; one that is no object, or has the field, becomes an error row."""
    for index, (value, line) in enumerate(zip(block.values, block.firsts, strict=True)):
        if index in block.errors:
            continue
        if isinstance(value, dict) and field not in value:
            value[field] = {"path": path, "line": line}
            continue
        what = f"has a field {field!r} already" if isinstance(value, dict) else "has no fields"
        block.errors[index] = SourceError(
            f"{path}:{line}: the row {what}, so origin cannot be put there; it is "
            f"{shown(cast('object', value))}; name another field, or leave origin out",
            path=path,
            line=line,
        )


def lost(path: str, resume: FilePosition, why: str) -> PositionLostError:
    """The error for a position that cannot be reached."""
    return PositionLostError(
        f"{path}: cannot resume after line {resume.line} (byte {resume.offset}): {why}. Nothing was read. "
        f"Set on_lost_position: restart to read the file from its beginning",
        path=path,
        line=resume.line,
        offset=resume.offset,
    )


def _open_regular(path: str, absolute: str) -> IO[bytes]:
    # O_NONBLOCK: opening a FIFO must not wait for its writer; regular files do not know the flag.
    descriptor = os.open(absolute, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file (a pipe, socket or device)"
        raise SourceError(
            f"{path!r} is {kind}; files.source reads regular files, stdio.source reads pipes", path=path
        )
    return cast("IO[bytes]", os.fdopen(descriptor, "rb", buffering=0))
