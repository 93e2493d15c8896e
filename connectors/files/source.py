"""files.source: rows of JSON lines, CSV and text files; a file, a folder or a pattern; once or followed.

Owns: `FilesSource`, its configuration.
Does not own: which files match (files.selection), reading one file (files.whole, files.tail), formats
(connectors.formats), where positions are kept.

Always holds: paths stay inside the roots the operator allows, symbolic links included; each file is a
partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

import msgspec

from connectors.files.bytes import compression_of, encoding_of, is_wide
from connectors.files.finding import Rotation
from connectors.files.health import readable
from connectors.files.identity import FilePosition
from connectors.files.opening import Format, Layout, OpenFile, format_of, lost, translated
from connectors.files.rotation import MOTION_S, InMotionError, Numbered
from connectors.files.selection import Selection
from connectors.files.tail import OnLostPosition, TailOptions, TailReader
from connectors.files.whole import WholeReader
from connectors.formats.csv_decoding import CsvDialect
from connectors.formats.csv_records import expect_signs
from flowcore.connector import Assigned, Position, Reader, Revoked, Source
from flowcore.context import SourceContext
from flowcore.errors import ConfigError, PositionLostError, SourceError
from flowcore.health import Health, HealthContext


class FilesSourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read and how."""

    path: Annotated[str, msgspec.Meta(min_length=1)]
    """A file, a folder (all its files whose extension names a format) or a glob pattern (`**` descends)."""
    format: Format | None = None
    """None: by extension; `.gz` and `.zst` are looked through."""
    mode: Literal["whole", "tail"] = "whole"
    """`whole` ends at the end of the files; `tail` follows them, and new ones that match."""
    values: Literal["json", "lossless"] = "json"
    """`lossless`: the `$` forms that files.sink writes with the same setting become the values they stand
    for."""
    encoding: str = "utf-8"
    columns: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    """CSV: the names of the cells; None: the first record names them."""
    header: bool | None = None
    """CSV: the first record holds names; None: yes, unless `columns` are given."""
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] | None = None
    """CSV: None is a comma, a tab for `.tsv`."""
    quote: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = '"'
    ragged: Literal["error", "fill"] = "error"
    """CSV: `fill` gives null for cells missing at the end of a record; too many cells are always an error."""
    max_line_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 16 << 20
    """A longer line (CSV: record) is an error row that holds its beginning."""
    origin: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """A field each row gets, `{path, line}`: where it begins. The rows must be objects without that field."""
    poll: timedelta = timedelta(milliseconds=250)
    """Tail: how often to look for new lines and new files."""
    rotate_wait: timedelta = timedelta(seconds=1)
    """Tail: how long a rotated file must have been quiet before the next one is read."""
    begin: Literal["current", "oldest"] = "current"
    """Tail, without a position: at the file that bears the name, or at the oldest of its rotations."""
    numbered: Numbered | None = None
    """Tail: `down`: `app.log.1` is the youngest rotation; `up`: the one with the highest number is. None:
    down, and an error when the modification times say otherwise."""
    on_lost_position: OnLostPosition = "fail"
    """A file that was truncated or replaced since: `fail`, or `restart` it from its beginning with a
    warning."""


class FilesSource(Source[FilesSourceConfig, object], type="files.source"):
    """Rows of files, each with its position, at least once.

    Emits           a value per line of `jsonl`, a dict per record of `csv` (a list without columns), text
                    per line of `lines`. What cannot be decoded is a failed row that says `file:line`; it
                    is never left out.
    Partitions      one per file, named by its path as configured.
    Resumes         at the row after the last settled one. A file that was truncated or replaced since raises
                    PositionLostError; tail finds a rotated file again by its inode or its first bytes.
                    Without a position tail begins with the file that bears the name, not with its rotations.
    Ends            with the files (`whole`), or when the run is stopping (`tail`).
    Holds           per open file one chunk of 256 KiB, decoded, and one unfinished row of at most
                    `max_line_bytes`.
    Fails           SourceError for what the operating system refuses and for damaged compressed data.
    """

    positions: ClassVar[Literal["none", "runtime", "own"]] = "runtime"

    def __init__(self, config: FilesSourceConfig) -> None:
        super().__init__(config)
        self._encoding = encoding_of(config.encoding)
        expect_signs(
            delimiter=config.delimiter or ",",
            quote=config.quote,
            encoding="utf-8" if is_wide(self._encoding) else self._encoding,
        )
        if config.poll <= timedelta(0):
            raise ConfigError(f"poll must be longer than nothing, got {config.poll!r}", value=config.poll)
        if config.origin is not None and config.format == "lines":
            raise ConfigError(
                f"origin: {config.origin!r} needs rows with fields, and those of format lines are text; "
                "leave it out",
                value=config.origin,
            )

    async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned | Revoked]:
        """One partition per file, in order of their paths; tail goes on to look for new ones."""
        config = self.config
        tail = config.mode == "tail"
        selection = self._selection()
        seen: set[str] = set()
        while True:
            matched = await asyncio.to_thread(selection.look, ctx.allowed_path)
            for message in matched.left_out:
                ctx.log(message, path=config.path)
            for path in matched.paths:
                if path not in seen:
                    seen.add(path)
                    yield Assigned(path)
            if not tail or config.path in seen or ctx.stopping():
                return
            await ctx.sleep(config.poll)

    async def begin(self, partition: str, ctx: SourceContext) -> Position | None:
        """Tail: the beginning of the file as it is now: a rotation before the first commit loses nothing."""
        if self.config.mode == "whole":
            return None
        self._expect_followable(partition)
        return (await self._start(partition, ctx.allowed_path(partition), ctx)).plain()

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[object]:
        """A reader that begins at `resume`, or at the beginning of the file."""
        absolute = ctx.allowed_path(partition)
        layout = self._layout(partition)
        where = None if resume is None else self._position(resume, partition, ctx)
        if self.config.mode == "tail":
            self._expect_followable(partition)
            start = await self._start(partition, absolute, ctx) if where is None else where
            return self._tail(partition, absolute, layout, start, ctx)
        try:
            file = await asyncio.to_thread(_open_whole, partition, absolute, layout, where)
        except PositionLostError as fault:
            if self.config.on_lost_position == "fail":
                raise
            ctx.log(f"{fault.message}; on_lost_position is restart", level="warning", path=partition)
            file = await asyncio.to_thread(_open_whole, partition, absolute, layout, None)
        return WholeReader(file)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether the files it would read now can be read; `tail` is degraded while they are not there."""
        matched = await asyncio.to_thread(self._selection().look, ctx.allowed_path)
        absolute = [ctx.allowed_path(path) for path in matched.paths]
        return await asyncio.to_thread(readable, absolute, waits=self.config.mode == "tail")

    def _selection(self) -> Selection:
        config = self.config
        return Selection(config.path, any_extension=config.format is not None, follow=config.mode == "tail")

    def _expect_followable(self, path: str) -> None:
        if compression_of(path) is not None or is_wide(self._encoding):
            raise SourceError(
                f"{path!r} cannot be followed: mode tail reads plain files in encodings whose newline is "
                f"one byte; use mode: whole",
                path=path,
            )

    async def _start(self, path: str, absolute: str, ctx: SourceContext) -> FilePosition:
        def look() -> FilePosition:
            with translated(path):
                rotation = Rotation(absolute, self.config.numbered)
                return rotation.start(oldest=self.config.begin == "oldest")

        began = ctx.monotonic()
        while True:
            try:
                return await asyncio.to_thread(look)
            except InMotionError:
                if ctx.monotonic() - began > MOTION_S:
                    raise
            await ctx.sleep(self.config.poll)

    def _tail(
        self, path: str, absolute: str, layout: Layout, resume: FilePosition, ctx: SourceContext
    ) -> TailReader:
        config = self.config
        options = TailOptions(
            poll=config.poll,
            rotate_wait=config.rotate_wait,
            on_lost_position=config.on_lost_position,
            numbered=config.numbered,
        )
        return TailReader(
            path=path, absolute=absolute, layout=layout, resume=resume, ctx=ctx, options=options
        )

    def _position(self, resume: Position, path: str, ctx: SourceContext) -> FilePosition | None:
        try:
            return FilePosition.of(resume, path=path)
        except PositionLostError as fault:
            if self.config.on_lost_position == "fail":
                raise
            ctx.log(f"{fault.message}; on_lost_position is restart", level="warning", path=path)
            return None

    def _layout(self, path: str) -> Layout:
        config = self.config
        is_tsv = path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
        dialect = CsvDialect(
            delimiter=config.delimiter or ("\t" if is_tsv else ","),
            quote=config.quote,
            columns=config.columns,
            header=config.columns is None if config.header is None else config.header,
            fill=config.ragged == "fill",
        )
        return Layout(
            format=format_of(path, config.format),
            encoding=self._encoding,
            max_line_bytes=config.max_line_bytes,
            dialect=dialect,
            lossless=self.config.values == "lossless",
            origin=config.origin,
        )


def _open_whole(path: str, absolute: str, layout: Layout, where: FilePosition | None) -> OpenFile:
    with translated(path):
        try:
            file = OpenFile(path, absolute, layout, where)
        except FileNotFoundError as fault:
            if where is None:
                raise
            raise lost(path, where, "the file is gone") from fault
        if where is not None and where.offset and file.identity.inode != where.inode:
            file.close()
            raise lost(path, where, "another file has taken its place")
        return file
