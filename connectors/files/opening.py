"""A file opened at a position: its bytes, its decoder, its identity, and the checks that make resuming safe.

Owns: `Layout` (how a file is read), `OpenFile`, the translation of operating system errors.
Does not own: which file comes next (files.whole, files.tail), framing and decoding (connectors.formats).

Always holds: an `OpenFile` begins exactly at the position asked for, or opening raised PositionLostError.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO, Final, Literal, cast

import msgspec

from connectors.files.bytes import compression_of, decoded, is_wide
from connectors.files.identity import KNOWN_BYTES, FileIdentity, FilePosition, Stretch
from connectors.files.trail import Trail
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
_BOM: Final = codecs.BOM_UTF8
_WIDE_BOMS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""The long ones first: one of the short ones is their beginning."""


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

    def __init__(
        self,
        path: str,
        absolute: str,
        layout: Layout,
        resume: FilePosition | None,
        *,
        grows: bool = False,
        inode: int | None = None,
    ) -> None:
        """`path` is what messages and positions call the file, `absolute` where it is.

        Args:
            path: as configured.
            absolute: links followed.
            layout: how its bytes become rows.
            resume: None: its beginning.
            grows: it is only appended to.
            inode: of the file meant; another one is as good as absent.

        Raises:
            PositionLostError: the file does not hold the position. FileNotFoundError and other OSErrors:
            as `open`.
        """
        self.path = path
        self.absolute = absolute
        self._layout = layout
        file = open_regular(path, absolute)
        try:
            found = _expect_inode(file, inode)
            self._file = file
            self.identity = FileIdentity(found, self._from_start().head(), grows=grows)
            self.line = 0
            self.row_end = 0
            """Offset after the last row read."""
            self.stretch = Stretch(0, b"")
            """The bytes of the last read that gave any, and those before it."""
            self._check = b""
            """Those before `row_end`."""
            self._decoder = layout.decoder(path)
            self._trail = self._from_start()
            if resume is not None:
                self._resume(resume)
            self._known = (self._trail.offset, self._trail.recent)
        except BaseException:
            file.close()
            raise

    def _from_start(self) -> Trail:
        self._file.seek(0)
        return Trail(decoded(self._file, self.absolute, encoding=self._layout.encoding))

    @property
    def offset(self) -> int:
        return self._trail.offset

    @property
    def is_plain(self) -> bool:
        """Offsets are those of the file itself: no compression, no wide encoding."""
        return self._trail.is_plain

    @property
    def is_compressed(self) -> bool:
        return compression_of(self.absolute) is not None

    def read(self) -> bytes:
        """The next bytes, at most `CHUNK_BYTES`; empty at the present end."""
        self._known = at, before = self._trail.offset, self._trail.recent
        chunk = self._trail.read(CHUNK_BYTES)
        if chunk:
            self.stretch = Stretch(at - len(before), before + chunk)
        return chunk

    def feed(self, chunk: bytes, *, first: bool) -> Block:
        """The rows that `chunk` completes; `first`: it is the beginning of the file."""
        if first:
            chunk = self._without_bom(chunk)
        return self._note(self._decoder.feed(chunk))

    @property
    def has_more(self) -> bool:
        """`feed` with no bytes gives further rows of what was read."""
        return self._decoder.has_more

    def end(self) -> Block:
        """Rows of what has no end yet, when none will come; no rows: that was all."""
        return self._note(self._decoder.end())

    def position(self) -> FilePosition:
        """Where the next row begins."""
        return self.identity.position(self.row_end, self.line, check_at=self.row_end, check=self._check)

    def status(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def is_as_read(self) -> bool:
        """A plain file still holds what was read; bytes in between are not looked at.

        It is as long as before, and its first bytes and those before the last read are the same.
        """
        descriptor = self._file.fileno()
        if self.status().st_size < self.offset:
            return False
        head = os.pread(descriptor, KNOWN_BYTES, 0)
        at, before = self._known
        if not head.startswith(self.identity.head) or (
            os.pread(descriptor, len(before), at - len(before)) != before
        ):
            return False
        if len(head) > len(self.identity.head):
            self.identity = FileIdentity(self.identity.inode, head, grows=self.identity.grows)
        return True

    def close(self) -> None:
        self._trail.close()

    def _note(self, block: Block) -> Block:
        if block.values:
            self.row_end, self.line = block.ends[-1], block.lines[-1]
            self._check = self.stretch.before(self.row_end)
        if self._layout.origin is not None:
            add_origin(block, self.path, self._layout.origin)
        return block

    def _without_bom(self, chunk: bytes) -> bytes:
        encoding = self._layout.encoding
        if encoding != "utf-8" and not is_wide(encoding):
            return chunk
        found = next((name for mark, name in _WIDE_BOMS if chunk.startswith(mark)), None)
        if found is not None and encoding == "utf-8":
            raise SourceError(
                f"{self.path}: begins with the byte order mark of {found.upper()}, the encoding is "
                f"{encoding!r}; set encoding: {found}",
                path=self.path,
            )
        if not chunk.startswith(_BOM):
            return chunk
        self._decoder.skip(len(_BOM))
        return chunk[len(_BOM) :]

    def _resume(self, resume: FilePosition) -> None:
        columns = self._columns() if resume.offset else None
        trail = self._from_start()
        why = trail.why_not(resume)
        if why is not None:
            raise lost(self.path, resume, why)
        if trail.offset != resume.offset:
            trail = self._from_start()
            trail.go_to(resume.offset)
        self._trail = trail
        if resume.offset == 0:
            return
        if trail.recent[-1:] != b"\n":
            self._expect_line_end(resume)
        self._decoder = self._layout.decoder(
            self.path, offset=trail.offset, line=resume.line, columns=columns
        )
        self.row_end, self.line, self._check = trail.offset, resume.line, trail.recent

    def _columns(self) -> Sequence[str] | None:
        """The header of a CSV file, read again from its beginning."""
        if self._layout.format != "csv" or not self._layout.dialect.header:
            return None
        decoder = cast("CsvDecoder", self._decoder)
        first = True
        while not decoder.ready:
            chunk = self._trail.read(CHUNK_BYTES)
            self.feed(chunk, first=first) if chunk else self.end()
            if not chunk:
                break
            first = False
        return decoder.columns

    def _expect_line_end(self, resume: FilePosition) -> None:
        """The row before had no newline when it was read; only a newline may have followed."""
        following = self._trail.read(1)
        if following == b"\r":
            following = self._trail.read(1)
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


def _expect_inode(file: IO[bytes], inode: int | None) -> int:
    found = os.fstat(file.fileno()).st_ino
    if inode not in (None, found):
        raise FileNotFoundError(errno.ENOENT, "another file has taken its place")
    return found


def open_regular(path: str, absolute: str) -> IO[bytes]:
    """The file at `absolute`, unbuffered, no link and nothing but a file; messages call it `path`."""
    # O_NONBLOCK: opening a FIFO must not wait for its writer; regular files do not know the flag.
    # O_NOFOLLOW: links were followed when the path was judged; one that appears since may lead anywhere.
    descriptor = os.open(absolute, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file (a pipe, socket or device)"
        raise SourceError(
            f"{path!r} is {kind}; files.source reads regular files, stdio.source reads pipes", path=path
        )
    return cast("IO[bytes]", os.fdopen(descriptor, "rb", buffering=0))
