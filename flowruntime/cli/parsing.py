"""From a command's function to its command line: the signature is the interface.

Owns: calling a function with parsed arguments, printing its help, wording of usage errors, the kinds of
options commands share.
Does not own: what commands do; which there are (main).

Always holds: a wrong command line runs nothing, prints one line on standard error and exits with 2.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import cyclopts
from cyclopts import Parameter

from flowruntime.cli.failures import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_USAGE: Final = 2
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


class _RefusedError(ValueError):
    """A value an option does not take; the message goes on after the option's name."""


def _whole(_: Any, tokens: Sequence[cyclopts.Token]) -> int:
    """A number as it is written: no other notation, nothing rounded."""
    text = tokens[0].value
    if not _DIGITS.fullmatch(text) or not int(text):
        raise _RefusedError(f"takes a whole number, at least 1, got {text!r}")
    return int(text)


Texts = Annotated[list[str] | None, Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Count = Annotated[int | None, Parameter(converter=_whole)]


class Group:
    """Several commands under one name, as `flow dlq list` and `flow dlq show`.

    Args:
        summary: for the help.
        commands: by the word that follows the name.
    """

    def __init__(self, summary: str, commands: Mapping[str, Callable[..., object]]) -> None:
        self.__doc__ = summary
        self.commands = commands


def call(name: str, command: Callable[..., object] | Group, tokens: Sequence[str]) -> int:
    """Run a command with its tokens; returns the exit code it answers (None counts as 0).

    Args:
        name: as typed after `flow`.
        command: positional parameters are arguments, keyword-only ones options; its docstring is the help.
            Or several of them under one name.
        tokens: what follows the name.
    """
    app = _app(name, command)
    if isinstance(command, Group):
        for word, each in command.commands.items():
            app.command(each, name=word, help=_prose(each))
        if not tokens:
            app.help_print(())
            return _USAGE
    else:
        app["--help"].group = "Parameters"
        app.default(command)
    try:
        answer = app(list(tokens), exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        say(f"flow {name}: {_sentence(error)}; `flow {name} --help` shows all options")
        return _USAGE
    return answer if isinstance(answer, int) else 0


def _app(name: str, command: Callable[..., object] | Group) -> cyclopts.App:
    return cyclopts.App(
        name=f"flow {name}",
        help=_prose(command),
        version_flags=[],
        help_flags=["--help", "-h"],
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # the caller tells it
    )


def _prose(command: Callable[..., object] | Group) -> str:
    """The docstring without its arguments, a line per paragraph: the terminal decides where lines end."""
    text, _, _ = inspect.cleandoc(command.__doc__ or "").partition("\nArgs:")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _sentence(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        return f"{' '.join(map(repr, error.unused_tokens))} is more than it takes"
    if isinstance(error, cyclopts.CoercionError) and isinstance(error.__cause__, _RefusedError):
        name = error.argument.name if error.argument is not None else "an option"
        return f"{name} {error.__cause__}"
    return " ".join(str(error).split()).rstrip(".")
