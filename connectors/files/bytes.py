"""A file as a stream of decoded bytes: compression and wide encodings undone, damage always noticed.

Owns: `decoded`, `ByteStream`, `DamagedDataError`; gzip and zstd by extension; UTF-16 and UTF-32 as UTF-8.
Does not own: lines and rows (connectors.formats), file identity (files.identity).

Always holds: a read returns at most what was asked for, whatever the compression ratio; a compressed file
that ends in the middle is an error, never a short read. Offsets count decoded bytes.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from typing import IO, Final, Protocol

from flowcore.errors import ConfigError, ConnectorError, SourceError

COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}
_SKIP_BYTES: Final = 1 << 20


def compression_of(path: str) -> str | None:
    """`gzip` or `zstd` by the extension, None for a plain file."""
    return COMPRESSED.get(os.path.splitext(path)[1].lower())  # noqa: PTH122 - paths are text throughout


def encoding_of(name: str) -> str:
    """The canonical name of an encoding; `utf-8-sig` is `utf-8`, whose byte order mark is passed over anyway.

    Raises:
        ConfigError: Python knows no such encoding.
    """
    try:
        "".encode(name)  # refuses what is no encoding of text, such as base64
        found = codecs.lookup(name).name
    except (LookupError, UnicodeError, ValueError):
        raise ConfigError(
            f"encoding {name!r} is not known; use a Python codec name such as 'utf-8', 'latin-1', 'utf-16'",
            value=name,
        ) from None
    return "utf-8" if found == "utf-8-sig" else found


def is_wide(encoding: str) -> bool:
    """A newline is not the byte 10: such text is turned into UTF-8 before it is split."""
    ascii_text = bytes(range(128)).decode("ascii")
    try:
        return ascii_text.encode(encoding) != ascii_text.encode("ascii")
    except (UnicodeError, LookupError):
        return True


class DamagedDataError(SourceError):
    """Compressed data that is not what it should be, or ends too early: attributes `path`, `offset`."""


class ByteStream(Protocol):
    """Decoded bytes, forward only."""

    offset: int
    """Decoded bytes read so far."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...

    def skip_to(self, offset: int) -> bool:
        """Go forward to `offset`; False when the input ends before it."""
        ...

    def close(self) -> None: ...


class PlainBytes:
    """An uncompressed file; skipping is a seek."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.offset = 0

    def read(self, size: int) -> bytes:
        chunk = self.file.read(size)
        self.offset += len(chunk)
        return chunk

    def skip_to(self, offset: int) -> bool:
        if os.fstat(self.file.fileno()).st_size < offset:
            return False
        self.file.seek(offset)
        self.offset = offset
        return True

    def close(self) -> None:
        self.file.close()


class _Decoded:
    """Bytes that can only be reached by decoding all that is before them."""

    def __init__(self) -> None:
        self.offset = 0

    def read(self, size: int) -> bytes:
        chunk = self._decode(size)
        self.offset += len(chunk)
        return chunk

    def skip_to(self, offset: int) -> bool:
        while self.offset < offset:
            if not self.read(min(_SKIP_BYTES, offset - self.offset)):
                return False
        return True

    def _decode(self, size: int) -> bytes:
        raise NotImplementedError


class GzipBytes(_Decoded):
    """A gzip file of one or more members."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb")

    def _decode(self, size: int) -> bytes:
        try:
            return self._gzip.read1(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
            raise _damaged(self._path, "gzip", self.offset, str(fault)) from fault

    def close(self) -> None:
        self._gzip.close()
        self._file.close()


class ZstdBytes(_Decoded):
    """A zstd file of one or more frames. Needs the extra `zstd`."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__()
        try:
            import zstandard
        except ModuleNotFoundError as fault:
            file.close()
            raise ConnectorError(
                f"{path!r} is zstd compressed and no zstd library is installed; pip install 'flowrx[zstd]'",
                path=path,
            ) from fault
        self._file = file
        self._path = path
        self._fault = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            file, read_across_frames=True, closefd=False
        )

    def _decode(self, size: int) -> bytes:
        try:
            chunk = self._stream.read1(size)  # read() would keep back what is good before the damage
        except self._fault as fault:
            raise _damaged(self._path, "zstd", self.offset, str(fault)) from fault
        if not chunk and not zstd_is_whole(self._file):
            # The library takes a file that ends inside a frame for one that has ended.
            raise _damaged(self._path, "zstd", self.offset, "it ends in the middle of a frame")
        return chunk

    def close(self) -> None:
        self._stream.close()  # pyright: ignore[reportUnknownMemberType] - zstandard's stubs leave it untyped
        self._file.close()


class WideText(_Decoded):
    """Text whose newline is not one byte, as UTF-8."""

    def __init__(self, inner: ByteStream, encoding: str, path: str) -> None:
        super().__init__()
        self._inner = inner
        self._encoding = encoding
        self._path = path
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""

    def _decode(self, size: int) -> bytes:
        while not self._ready:
            raw = self._inner.read(size)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeError as fault:  # of a missing byte order mark Python says no more than that
                reason = fault.reason if isinstance(fault, UnicodeDecodeError) else str(fault)
                raise SourceError(
                    f"{self._path}: not {self._encoding} text near byte {self._inner.offset} "
                    f"({reason}); set encoding",
                    path=self._path,
                ) from fault
            self._ready = text.encode("utf-8", "surrogatepass")
            if not raw and not self._ready:
                return b""
        chunk, self._ready = self._ready[:size], self._ready[size:]
        return chunk

    def close(self) -> None:
        self._inner.close()


def decoded(file: IO[bytes], path: str, *, encoding: str) -> ByteStream:
    """The decoded bytes of an open file; the extension of `path` says how it is compressed.

    Raises:
        ConnectorError: the library of its compression is not installed.
    """
    compression = compression_of(path)
    stream: ByteStream
    if compression == "gzip":
        stream = GzipBytes(file, path)
    elif compression == "zstd":
        stream = ZstdBytes(file, path)
    else:
        stream = PlainBytes(file)
    return WideText(stream, encoding, path) if is_wide(encoding) else stream


_ZSTD_MAGIC: Final = 0xFD2FB528
_SKIPPABLE_MAGIC: Final = 0x184D2A50


def zstd_is_whole(file: IO[bytes]) -> bool:
    """Whether a zstd file ends at the end of a frame; reads frame and block headers only.

    Source: RFC 8878, section 3.1.
    """
    size = file.seek(0, io.SEEK_END)
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(14)
        magic = int.from_bytes(head[:4], "little")
        if magic & 0xFFFFFFF0 == _SKIPPABLE_MAGIC and len(head) >= 8:  # noqa: PLR2004 - magic and length, 4 bytes each
            at += 8 + int.from_bytes(head[4:8], "little")
            continue
        if magic != _ZSTD_MAGIC or len(head) < 5:  # noqa: PLR2004 - magic and descriptor
            return False
        end = _frame_end(file, at + 4, head[4], size)
        if end is None:
            return False
        at = end
    return at == size


def _frame_end(file: IO[bytes], at: int, descriptor: int, size: int) -> int | None:
    single, content, dictionary = descriptor >> 5 & 1, descriptor >> 6, descriptor & 3
    at += 1 + (0 if single else 1) + (0, 1, 2, 4)[dictionary] + ((1 if single else 0), 2, 4, 8)[content]
    last = False
    while not last:
        file.seek(at)
        header = file.read(3)
        if len(header) < 3:  # noqa: PLR2004 - a block header
            return None
        word = int.from_bytes(header, "little")
        last, run_length = bool(word & 1), word >> 1 & 3 == 1
        at += 3 + (1 if run_length else word >> 3)
    at += 4 if descriptor >> 2 & 1 else 0
    return at if at <= size else None


def _damaged(path: str, form: str, offset: int, reason: str) -> DamagedDataError:
    return DamagedDataError(
        f"{path}: the {form} data is damaged or cut short after {offset} decoded bytes ({reason}); "
        f"the rows before that were read",
        path=path,
        offset=offset,
    )
