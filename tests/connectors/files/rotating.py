"""A log file with its writer and its rotations, and a reader that commits, crashes and comes back.

Owns: `Log` (what logrotate and a writer do to real files), `Follower` (what a run does with a reader).
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import zstandard

from connectors.files.source import FilesSource, FilesSourceConfig
from flowcore.connector import Credit, Position, Reader
from flowruntime.testing.contexts import StandaloneSourceContext


class Log:
    """`app.log`, written line by line; each line is unique."""

    def __init__(self, folder: Path, name: str = "app.log") -> None:
        self.path = folder / name
        self.lines: list[str] = []
        """In the order written."""

    def write(self, count: int = 1, *, to: Path | None = None, width: int = 0) -> None:
        """Append lines to the file that bears the name, or to another one."""
        with (to or self.path).open("a") as file:
            for _ in range(count):
                line = f"line {len(self.lines)} ".ljust(width, "x")
                self.lines.append(line)
                file.write(line + "\n")

    def rotations(self) -> list[Path]:
        """Youngest first."""
        found = self.path.parent.glob(f"{self.path.name}.*")
        return sorted(found, key=lambda path: int(path.name.split(".")[2]))

    def make_room(self) -> None:
        """Move each rotation on to the next number."""
        for path in reversed(self.rotations()):
            parts = path.name.split(".")
            parts[2] = str(int(parts[2]) + 1)
            path.rename(path.with_name(".".join(parts)))

    def rename(self, *, create: bool = True) -> Path:
        """What logrotate does with `create` or `nocreate`; the file as it is called now."""
        self.make_room()
        rotated = self.path.with_name(f"{self.path.name}.1")
        self.path.rename(rotated)
        if create:
            self.path.touch()
        return rotated

    def copy_and_truncate(self) -> None:
        """What logrotate does with `copytruncate`."""
        self.make_room()
        shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
        os.truncate(self.path, 0)

    def compress(self, path: Path, form: str = "gz", *, keep_time: bool = True) -> Path:
        """What logrotate does with `compress`; the modification time is kept as gzip and zstd keep it."""
        status = path.stat()
        squeeze = gzip.compress if form == "gz" else zstandard.ZstdCompressor().compress
        target = path.with_name(f"{path.name}.{form}")
        target.write_bytes(squeeze(path.read_bytes()))
        if keep_time:
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        path.unlink()
        return target


class Patience(StandaloneSourceContext):
    """Stops by itself when nothing came for a while, in virtual time."""

    until = 0.0
    looks = 0
    """How often somebody waited for the next look."""

    async def sleep(self, delay: timedelta) -> None:
        self.looks += 1
        await super().sleep(delay)

    def stopping(self) -> bool:
        return self.monotonic() > self.until


class Follower:
    """Follows a log as a run does: keeps where it begins before it reads, commits, resumes.

    Always holds: what is read is the line after the last one read, or, after a crash, the last committed.
    """

    def __init__(self, log: Log, **config: Any) -> None:
        self.log = log
        self.config: dict[str, Any] = {"poll": timedelta(seconds=0.5), **config}
        self.read = 0
        """Lines read so far: the next line expected."""
        self.started = False
        self.patience_s = 30.0
        """How long `take` waits for a line, in virtual time."""
        self.warnings: list[str] = []
        self._committed: tuple[int, Position | None] = (0, None)
        self._latest: tuple[int, Position | None] = (0, None)
        self._reader: Reader[object] | None = None
        self._ctx = Patience()

    async def start(self) -> None:
        source = FilesSource(
            FilesSourceConfig(path=str(self.log.path), mode="tail", format="lines", **self.config)
        )
        self._ctx = Patience()
        at, position = self._committed
        if position is None:
            position = await source.begin(str(self.log.path), self._ctx)
            self._committed = (at, position)
        self.started = True
        self.read, self._latest = at, self._committed
        self._reader = await source.open(str(self.log.path), position, self._ctx)

    async def take(self, most: int) -> int:
        """Read up to `most` lines; returns how many came before patience ended."""
        assert self._reader is not None
        taken = 0
        while taken < most:
            self._ctx.until = self._ctx.monotonic() + self.patience_s
            rows = await self._reader.read(Credit(rows=most - taken))
            if rows is None:
                break
            assert not rows.errors
            expected = self.log.lines[self.read : self.read + len(rows)]
            assert rows.values == expected, [str(v)[:20] for v in rows.values]
            self.read += len(rows)
            taken += len(rows)
            self._latest = (self.read, rows.next)
        self.warnings += [logged.message for logged in self._ctx.logs]
        self._ctx.logs.clear()
        return taken

    async def take_all(self) -> None:
        """Everything written comes."""
        missing = len(self.log.lines) - self.read
        assert await self.take(missing) == missing

    async def finish(self) -> None:
        """Everything written comes, and nothing after it; the reader has ended then."""
        await self.take_all()
        assert await self.take(1) == 0

    async def looked(self, times: int) -> None:
        """Until it has looked in vain so many times since the start."""
        while self._ctx.looks < times:  # noqa: ASYNC110 - it happens in virtual time, in some turns of the loop
            await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        """Nobody looks for so long, in virtual time."""
        self._ctx.time.advance(timedelta(seconds=seconds))

    def commit(self) -> None:
        self._committed = self._latest

    async def crash(self) -> None:
        """Forget everything that was not committed."""
        if self._reader is not None:
            await self._reader.close()
        self._reader = None

    async def restart(self) -> None:
        """Crash and come back."""
        await self.crash()
        await self.start()
