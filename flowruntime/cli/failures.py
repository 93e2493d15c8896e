"""What went wrong, for people: one line per problem on standard error, and the exit code.

Owns: `UsageError`, the text of errors, which exit code an error means.
Does not own: the errors (flowcore.errors).

Always holds: an error that is not ours and not the system's is not explained away: it keeps its traceback.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from flowcore.errors import BuildError, FlowError, Problem, ValidationFailedError
from flowruntime.cli.streams import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILED: Final = 1
USAGE: Final = 2


def say(text: str) -> None:
    """One line on standard error; when nobody reads that any more, there is nobody to tell."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class UsageError(BuildError, ValueError):
    """The command line, or a file it names, cannot be used; the message says what to write instead."""


def exit_code_of(command: str, error: Exception) -> int | None:
    """Say what went wrong and give the exit code; None for an error nobody foresaw, or of standard output."""
    if isinstance(error, ValidationFailedError):
        print_problems(error.problems)
        return USAGE
    if isinstance(error, FlowError):
        say(f"flow {command}: {error}")
        return USAGE if isinstance(error, BuildError) else FAILED
    if isinstance(error, OSError) and not isinstance(error, OutputError):
        where = "" if error.filename is None else f" {error.filename!r}:"
        say(f"flow {command}:{where} {error.strerror or error}")
        return FAILED
    return None


def print_problems(problems: Iterable[Problem], *, file: str | None = None, to_stdout: bool = False) -> int:
    """One line per problem, `file:line: path: problem; remedy`; returns how many were errors.

    Args:
        problems: in order.
        file: named where a problem does not say its own.
        to_stdout: problems are the result that was asked for.
    """
    errors = 0
    for problem in problems:
        warning = problem.severity != "error"
        errors += not warning
        text = str(problem)
        if problem.file is None and file is not None:
            text = f"{file}:{text}" if problem.line is not None else f"{file}: {text}"
        line = f"warning: {text}" if warning else text
        if to_stdout:
            print(line)
        else:
            say(line)
    return errors
