"""Showing progress on standard error: a live table on a terminal, a line now and then elsewhere.

Owns: when something is drawn. Does not own: the figures (progress), the closing summary (summary).

Always holds: nothing is drawn after `stop`; standard output is never touched; a terminal that goes away
ends the display, not the run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from flowcore.events import Gap, LlmCall, StageProgress
from flowruntime.cli.failures import say
from flowruntime.cli.progress import HEAD, ModelTotals, Progress, columns_for

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from flowruntime.events.bus import EventBus

LINE_EVERY_S: Final = 5.0
DRAW_EVERY_S: Final = 0.5


class _Screen(Protocol):
    every_s: float

    def draw(self, progress: Progress, elapsed_s: float) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


class Display:
    """Follows a bus and draws until stopped.

    Args:
        bus: whose StageProgress and LlmCall events are shown.
        progress: kept up to date.
        live: draw a table; None asks whether standard error is a terminal.
        every_s: how often a line is printed where there is no table.
    """

    def __init__(
        self, bus: EventBus, progress: Progress, *, live: bool | None = None, every_s: float = LINE_EVERY_S
    ) -> None:
        self._progress = progress
        self._started = time.monotonic()
        self.live = _can_draw() if live is None else live
        self._screen: _Screen = _Table() if self.live else _Lines(every_s)
        self._listener = bus.listen(self._see, {StageProgress, LlmCall}, name="progress display")
        self._task = asyncio.create_task(self._draw(), name="flow progress display")

    def _see(self, event: StageProgress | LlmCall | Gap) -> None:
        if isinstance(event, StageProgress):
            self._progress.see(event)
        elif isinstance(event, LlmCall):
            self._progress.models.see(event)

    @property
    def models(self) -> ModelTotals:
        """What calls of models came to so far."""
        return self._progress.models

    async def _draw(self) -> None:
        while True:
            await asyncio.sleep(self._screen.every_s)
            self._screen.draw(self._progress, time.monotonic() - self._started)

    def say(self, text: str) -> None:
        """Print a line of its own; it scrolls away above a table."""
        self._screen.say(text)

    async def stop(self) -> None:
        """Draw no more, and take the table away."""
        self._listener.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._screen.close()


def _can_draw() -> bool:
    """Whether standard error is a terminal on which lines can be drawn anew."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class _Lines:
    def __init__(self, every_s: float) -> None:
        self.every_s = every_s

    def draw(self, progress: Progress, elapsed_s: float) -> None:
        self.say(progress.line(elapsed_s))

    def say(self, text: str) -> None:
        say(text)

    def close(self) -> None:
        """Nothing is open."""


class _Table:
    every_s = DRAW_EVERY_S

    def __init__(self) -> None:
        self._live: Live | None = None

    def draw(self, progress: Progress, elapsed_s: float) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            # No refresh thread: the loop draws, so the figures are never read half-written.
            self._live = Live(
                console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False
            )
            self._live.start()
        width = self._live.console.width
        self._live.update(_rich_table(progress, elapsed_s, width), refresh=True)

    def say(self, text: str) -> None:
        if self._live is None:
            say(text)
        else:
            self._live.console.print(text, markup=False, highlight=False, no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        if self._live is not None:
            with suppress(OSError):  # the terminal has gone away
                self._live.stop()


def _rich_table(progress: Progress, elapsed_s: float, width: int) -> Table | Text:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = progress.rows()
    columns = columns_for(rows, width)
    if not columns:
        return Text(progress.headline(elapsed_s))
    written = "  ".join(f"{name} {count:,}" for name, count in progress.written().items())
    notes = [f"written: {written}"] if written else []
    if progress.models.matter:
        notes.append(str(progress.models))
    table = Table(
        title=progress.headline(elapsed_s),
        caption="\n".join(notes) or None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE,
    )
    for index in columns:
        table.add_column(HEAD[index], justify="right" if index else "left", no_wrap=True)
    for row in rows:
        failed = row[-1] not in ("-", "")
        table.add_row(*(row[index] for index in columns), style="red" if failed else None)
    return table
