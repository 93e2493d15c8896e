"""files.source: rows of JSON lines, CSV and text files; a file, a folder or a pattern; once or followed.

Owns: `FilesSource`, its configuration, and which files match.
Does not own: reading one file (files.whole, files.tail), formats (connectors.formats), where positions are
kept.

Always holds: paths stay inside the roots the operator allows, symbolic links included; each file is a
partition.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

import msgspec

from connectors.files.bytes import compression_of, encoding_of, is_wide
from connectors.files.identity import FilePosition
from connectors.files.opening import EXTENSIONS, Format, Layout, OpenFile, format_of, lost, translated
from connectors.files.rotation import is_rotation_of
from connectors.files.tail import OnLostPosition, TailReader
from connectors.files.whole import WholeReader
from connectors.formats.csv_decoding import CsvDialect
from flowcore.connector import Assigned, Position, Reader, Revoked, Source
from flowcore.context import SourceContext
from flowcore.errors import ConfigError, PositionLostError, SourceError


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
        seen: set[str] = set()
        while True:
            paths = await asyncio.to_thread(self._matches, ctx)
            for path in paths:
                if path not in seen:
                    seen.add(path)
                    yield Assigned(path)
            if not self._looks_for_more(seen) or ctx.stopping():
                return
            await ctx.sleep(self.config.poll)

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[object]:
        """A reader that begins at `resume`, or at the beginning of the file."""
        absolute = ctx.allowed_path(partition)
        layout = self._layout(partition)
        where = None if resume is None else self._position(resume, partition, ctx)
        if self.config.mode == "tail":
            return self._tail(partition, absolute, layout, where, ctx)
        try:
            file = await asyncio.to_thread(_open_whole, partition, absolute, layout, where)
        except PositionLostError as fault:
            if self.config.on_lost_position == "fail":
                raise
            ctx.log(f"{fault.message}; on_lost_position is restart", level="warning", path=partition)
            file = await asyncio.to_thread(_open_whole, partition, absolute, layout, None)
        return WholeReader(file)

    def _tail(
        self, path: str, absolute: str, layout: Layout, where: FilePosition | None, ctx: SourceContext
    ) -> TailReader:
        if compression_of(path) is not None or is_wide(self._encoding):
            raise SourceError(
                f"{path!r} cannot be followed: mode tail reads plain files in encodings whose newline is "
                f"one byte; use mode: whole",
                path=path,
            )
        config = self.config
        return TailReader(
            path=path, absolute=absolute, layout=layout, resume=where, ctx=ctx, poll=config.poll,
            rotate_wait=config.rotate_wait, on_lost_position=config.on_lost_position,
        )  # fmt: skip

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

    # --- which files ---------------------------------------------------------------------------------------

    def _looks_for_more(self, seen: set[str]) -> bool:
        return self.config.mode == "tail" and self.config.path not in seen

    def _matches(self, ctx: SourceContext) -> list[str]:
        path = self.config.path
        tail = self.config.mode == "tail"
        if not glob.has_magic(path) or os.path.lexists(path):
            absolute = ctx.allowed_path(path)
            if os.path.isdir(absolute):  # noqa: PTH112 - paths are text throughout
                return self._checked(
                    self._in_folder(path, absolute),
                    ctx,
                    f"the folder {path!r} holds no file of a known format",
                )
            if not tail and not os.path.exists(absolute):  # noqa: PTH110 - as above
                raise SourceError(
                    f"{path!r} does not exist (looked for {absolute!r}); check path, or "
                    f"set mode: tail to wait for it",
                    path=path,
                )
            return [path]
        fixed, pattern = _split_pattern(path)
        base = ctx.allowed_path(fixed)
        names = glob.iglob(pattern, root_dir=base, recursive=True)  # noqa: PTH207 - as above
        found = [os.path.join(fixed, name) for name in names if os.path.isfile(os.path.join(base, name))]  # noqa: PTH113, PTH118 - as above
        return self._checked(sorted(found), ctx, f"no file matches {path!r}")

    def _in_folder(self, path: str, absolute: str) -> list[str]:
        found: list[str] = []
        with os.scandir(absolute) as entries:
            for entry in entries:
                stem = entry.name.removesuffix(".gz").removesuffix(".zst")
                known = os.path.splitext(stem)[1].lower() in EXTENSIONS or self.config.format is not None  # noqa: PTH122 - as above
                if known and not entry.name.startswith(".") and entry.is_file():
                    found.append(os.path.join(path, entry.name))  # noqa: PTH118 - as above
        return sorted(found)

    def _checked(self, paths: list[str], ctx: SourceContext, nothing: str) -> list[str]:
        if not paths and self.config.mode == "whole":
            raise SourceError(f"{nothing}; check path", path=self.config.path)
        for path in paths:
            ctx.allowed_path(path)
        if self.config.mode == "tail":
            _refuse_rotations(paths)
        return paths


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


def _split_pattern(path: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the rest."""
    parts = path.split(os.sep)  # noqa: PTH206 - as above
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    folder = os.sep.join(parts[:fixed]) or (os.sep if path.startswith(os.sep) else "")  # noqa: PTH118 - as above
    return folder, os.sep.join(parts[fixed:])  # noqa: PTH118 - as above


def _refuse_rotations(paths: list[str]) -> None:
    known = set(paths)
    for path in paths:
        folder, name = os.path.split(path)
        for end, letter in enumerate(name):
            base = os.path.join(folder, name[:end])  # noqa: PTH118 - paths are text throughout
            if letter in ".-_" and base in known and is_rotation_of(name, name[:end]):
                raise SourceError(
                    f"the pattern matches {path!r}, which is a rotation of {base!r}; following both would "
                    f"repeat lines; narrow path so that it matches current files only",
                    path=path,
                )
