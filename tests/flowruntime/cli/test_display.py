"""The progress display: what is said stands on a line of its own, above the table where there is one."""

from __future__ import annotations

import asyncio

import pytest

from flowruntime.cli.display import Display
from flowruntime.cli.progress import Progress
from flowruntime.events.bus import EventBus
from tests.behaviour.harness import virtual


@virtual
async def test_without_a_terminal_progress_and_what_is_said_are_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bus = EventBus()
    display = Display(bus, Progress([], []), live=False, every_s=2.0)
    display.say("[bold]as it is[/bold]")
    await asyncio.sleep(2.5)
    await display.stop()
    said, progress = capsys.readouterr().err.splitlines()
    assert said == "[bold]as it is[/bold]"
    assert "0 records" in progress
    await bus.aclose()


@virtual
async def test_on_a_terminal_what_is_said_is_printed_as_it_is_above_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever a record holds is text, never markup."""
    bus = EventBus()
    display = Display(bus, Progress([], []), live=True)
    display.say("before the first table")
    await asyncio.sleep(0.6)
    display.say("[bold]as it is[/bold]")
    await display.stop()
    shown = capsys.readouterr().err
    assert shown.startswith("before the first table\n")
    assert "[bold]as it is[/bold]" in shown
    await bus.aclose()
