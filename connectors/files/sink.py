"""files.sink: rows into a file of JSON lines, CSV or text lines, appended to or replaced as a whole.

Owns: `FilesSink`, its configuration.
Does not own: the file on disk (files.output), how rows become lines (formats.encoding).

Always holds: in mode append a row is on the disk (fsync) when `write` returns; in mode atomic nothing is
seen of the new file before `finish`, and all of it afterwards. No half line is ever left by a failed write.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, TypeVar, cast

import msgspec

from connectors.files.bytes import compression_of
from connectors.files.health import writable
from connectors.files.letters import FileLetters
from connectors.files.opening import format_of
from connectors.files.output import AppendFile, AtomicFile, make_folder
from connectors.formats.csv_records import expect_signs
from connectors.formats.encoding import CsvEncoder, LineEncoder, OutputFormat, encode_all, encoder_of
from flowcore.connector import Rows, Sink
from flowcore.context import SinkContext
from flowcore.errors import ConfigError, ConnectorError, SinkError
from flowcore.health import Health, HealthContext

R = TypeVar("R")


class FilesSinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where rows go and how."""

    path: Annotated[str, msgspec.Meta(min_length=1)]
    format: OutputFormat | None = None
    """None: by extension; `.gz` and `.zst` are looked through."""
    mode: Literal["append", "atomic"] = "append"
    """`append`: rows are added and durable write by write. `atomic`: the file is replaced when the run has
    finished."""
    values: Literal["json", "lossless"] = "json"
    """jsonl: `lossless` writes bytes, NaN and the like in the `$` forms of FlowRx; `json` refuses such
    rows."""
    columns: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    """CSV: None takes the header of the file appended to, else the fields of the first row."""
    header: bool = True
    """CSV: begin a new file with the names of the columns."""
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] | None = None
    """CSV: None is a comma, a tab for `.tsv`."""
    create_folder: bool = True
    """Make the folder when it is missing."""


class FilesSink(Sink[FilesSinkConfig, object], type="files.sink"):
    """Rows as lines of one file.

    Settles         append: when `write` returns, after fsync; atomic: when `finish` returns, after the
                    rename.
    Fails by row    what the format has no form for: NaN or bytes in JSON, a line break in `lines`, an
                    unknown column.
    Fails           SinkError when the file is locked by another sink, cannot be written, or the disk is
                    full; the file is cut back to its last whole line, so the same rows can be written again.
                    After a failed fsync every further write fails, too: what is on the disk is unknown then,
                    and a later fsync would not tell. A new run begins after the last acknowledged line.
    Repairs         a last line torn by a crash is moved to `<path>.torn` and reported (its row was never
                    acknowledged); a whole JSON value that lacks only its newline gets one.
    Replaces        in mode atomic an existing file, keeping its mode bits; `.gz` and `.zst` are compressed
                    there.
    Holds           one batch, encoded.
    """

    def __init__(self, config: FilesSinkConfig) -> None:
        super().__init__(config)
        self.settles = "at_end" if config.mode == "atomic" else "on_write"
        self._format: OutputFormat = format_of(config.path, config.format)
        self._compression = compression_of(config.path)
        if self._compression is not None and config.mode == "append":
            raise ConfigError(
                f"{config.path!r} would be compressed, and a crash could leave it unreadable; use "
                f"mode: atomic, or a name without .gz or .zst",
                value=config.path,
            )
        is_tsv = config.path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
        self._delimiter = config.delimiter or ("\t" if is_tsv else ",")
        expect_signs(delimiter=self._delimiter)
        self._encoder: LineEncoder = encoder_of(
            self._format,
            lossless=config.values == "lossless",
            delimiter=self._delimiter,
            columns=config.columns,
        )
        self._file: AppendFile | AtomicFile | None = None
        self._turn = asyncio.Lock()
        self._busy: asyncio.Future[object] | None = None

    @classmethod
    def dead_letters(cls, config: FilesSinkConfig) -> FileLetters:
        """Dead letters as JSON lines, for `settings.dead_letter`: appended to, by any number of processes.

        Raises:
            ConfigError: the file would hold something else than lines of JSON that can be appended to.
        """
        lines = format_of(config.path, config.format) == "jsonl" and compression_of(config.path) is None
        if config.mode != "append" or not lines:
            raise ConfigError(
                f"{config.path!r} cannot hold dead letters: they are appended as JSON lines, not compressed "
                "or replaced; use mode: append and a name like dead.jsonl",
                value=config.path,
            )
        return FileLetters(config.path, create_folder=config.create_folder)

    async def open(self, ctx: SinkContext) -> None:
        path = ctx.allowed_path(self.config.path)
        repaired = await self._in_thread(lambda: self._open(path))
        if repaired:
            ctx.log(repaired, level="warning", path=self.config.path)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether the file can be written, or made."""
        path = ctx.allowed_path(self.config.path)
        return await asyncio.to_thread(writable, path, create_folder=self.config.create_folder)

    async def write(self, batch: Rows[object]) -> Mapping[int, Exception]:
        values = batch.values
        return await self._in_thread(lambda: self._write(values))

    async def finish(self) -> None:
        await self._in_thread(self._finish)

    async def close(self) -> None:
        """Wait for a write under way, then close; an unfinished atomic file is removed."""
        await self._in_thread(self._close)

    # --- in a thread ---------------------------------------------------------------------------------------

    def _open(self, path: str) -> str | None:
        if self._file is not None:
            raise SinkError(f"{self.config.path!r} is open already; open a sink once", path=self.config.path)
        if self.config.create_folder:
            make_folder(path)
        if self.config.mode == "atomic":
            atomic = AtomicFile(path)
            atomic.open()
            self._file = atomic
            return None
        file = AppendFile(path, format=self._format, delimiter=self._delimiter)
        repaired = file.open()
        self._file = file
        if isinstance(self._encoder, CsvEncoder) and self.config.header and file.size:
            try:
                self._check_header(self._encoder, file.beginning())
            except BaseException:
                self._close()
                raise
        return repaired

    def _check_header(self, encoder: CsvEncoder, beginning: bytes) -> None:
        found = encoder.names_in(beginning)
        if found is None:
            raise SinkError(
                f"{self.config.path!r} begins with no header that could be read as UTF-8 CSV; write to "
                f"another file, or set header: false and columns",
                path=self.config.path,
            )
        if encoder.columns is None:
            encoder.columns = found
        elif encoder.columns != found:
            raise SinkError(
                f"{self.config.path!r} has the columns {', '.join(found)}, configured are "
                f"{', '.join(encoder.columns)}; write to another file, or give the same columns",
                path=self.config.path,
            )

    def _write(self, rows: Sequence[object]) -> Mapping[int, Exception]:
        file = self._opened("written")
        begins = file.size == 0
        encoder = self._encoder
        if isinstance(encoder, CsvEncoder):
            for row in rows:
                encoder.adopt(row)
        lines, errors = encode_all(encoder, rows)
        if lines:
            file.append(self._packed(self._heading(begins=begins) + b"".join(lines)))
        return errors

    def _heading(self, *, begins: bool) -> bytes:
        encoder = self._encoder
        due = begins and self.config.header and isinstance(encoder, CsvEncoder) and encoder.columns
        return encoder.header() if due and isinstance(encoder, CsvEncoder) else b""

    def _packed(self, data: bytes) -> bytes:
        """Each write is a member or frame of its own, so that a failed one can be cut off."""
        if self._compression == "gzip":
            return gzip.compress(data)
        if self._compression == "zstd":
            return _zstd(data, self.config.path)
        return data

    def _finish(self) -> None:
        file = self._opened("finished")
        if isinstance(file, AtomicFile):
            if file.size == 0:
                file.append(self._packed(self._heading(begins=True)))
            file.finish()

    def _opened(self, what: str) -> AppendFile | AtomicFile:
        if self._file is None:
            raise SinkError(f"{self.config.path!r} is not open and cannot be {what}", path=self.config.path)
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    # --- on the loop ---------------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[[], R]) -> R:
        """One call at a time; one that was cancelled is waited for by the next."""
        async with self._turn:
            if self._busy is not None:
                await asyncio.wait([self._busy])
                self._busy.exception()  # its caller was cancelled; its rows are not acknowledged
            busy = asyncio.get_running_loop().run_in_executor(None, call)
            self._busy = cast("asyncio.Future[object]", busy)
            await asyncio.wait([busy])
            self._busy = None
            return busy.result()


def _zstd(data: bytes, path: str) -> bytes:
    try:
        import zstandard
    except ModuleNotFoundError as fault:
        raise ConnectorError(
            f"{path!r} is to be zstd compressed and no zstd library is installed; pip install 'flowrx[zstd]'",
            path=path,
        ) from fault
    return zstandard.ZstdCompressor().compress(data)
