"""Functions that tests run in worker processes: importable there, and light."""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any


def echo(*values: Any, **named: Any) -> Any:
    """What it was given."""
    return list(values) if not named else [*values, named]


def pid() -> int:
    """Of the process it runs in."""
    return os.getpid()


def die(how: str) -> None:
    """End the process in the middle of the call."""
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "abort":
            os.abort()
        case _:
            sys.exit("leave")


def read(path: str) -> str:
    """Block until somebody writes to a pipe of that name."""
    return Path(path).read_text()


def tell_and_block(told: str, never: str) -> None:
    """Write its process id to one pipe, then wait for another."""
    Path(told).write_text(str(os.getpid()))
    Path(never).read_text()


def tell_and_burn(told: str) -> None:
    """Write its process id to a pipe, then hold the interpreter's lock for longer than anyone will wait."""
    Path(told).write_text(str(os.getpid()))
    re.fullmatch(r"(a|a)*b", "a" * 60)


def say_at_exit(path: str) -> None:
    """Write to a file when the process ends by itself."""
    atexit.register(lambda: Path(path).write_text("ended"))


def own() -> object:
    """Something that cannot cross."""
    return object()


def fail() -> None:
    """An exception with facts."""
    from flowcore.errors import HttpUnavailableError

    raise HttpUnavailableError("later", retry_after_s=2.5)


def act(name: str, *arguments: Any) -> Any:
    """One of the functions above, so that all may run in the processes of one node."""
    return globals()[name](*arguments)
