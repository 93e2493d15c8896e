"""Crash points: places where a test may kill the process, to see that nothing is lost or half done.

    FLOW_CRASHPOINT=sink.after_write:3 flow run orders.yaml      # killed after the third write

Owns: the names of the places, and dying there. Does not own: what must hold afterwards (tests).

Always holds: without FLOW_CRASHPOINT a place costs one call of an empty function, per frame or write, never
per row of a fused stage.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from flowcore.errors import ConfigError

POINTS: Final = (
    "source.assigned",
    "source.after_read",
    "stage.before",
    "stage.after",
    "node.before_call",
    "node.after_call",
    "calls.before_journal",
    "calls.after_journal",
    "sink.before_write",
    "sink.after_write",
    "letters.before_write",
    "letters.after_write",
    "execution.after_create",
    "journal.before_put",
    "journal.after_put",
    "hold.before_store",
    "hold.after_store",
    "hold.after_claim",
    "hold.before_done",
    "hold.after_done",
    "waits.before_open",
    "waits.after_open",
    "execution.after_pause",
    "waits.after_answer",
    "waits.after_expire",
    "execution.after_claim",
    "execution.before_end",
    "execution.after_end",
    "sink.before_finish",
    "sink.after_finish",
    "commit.before",
    "commit.between",
    "commit.after",
    "positions.before_write",
    "positions.after_write",
)
"""In the order a record passes them; `commit.between`: the reader has committed, the position is not kept."""

VARIABLE: Final = "FLOW_CRASHPOINT"


def _pass(name: str) -> None:
    """No crash was asked for."""


def armed(environment: Mapping[str, str]) -> Callable[[str], None]:
    """The function to call at each place; it kills the process at the one the environment names.

    Raises:
        ConfigError: there is no such place, or the count is none.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return _pass
    wanted, _, count = text.partition(":")
    if wanted not in POINTS or not (count or "1").isdecimal() or int(count or "1") < 1:
        raise ConfigError(
            f"{VARIABLE}={text!r}: give one of {', '.join(POINTS)}, and after a colon the how manieth time, "
            "from 1"
        )
    left = int(count or "1")

    def crash(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return crash


crash_point: Final = armed(os.environ)
