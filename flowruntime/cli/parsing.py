"""From a command's function to its command line: the signature is the interface.

Owns: calling a function with parsed arguments, printing its help, wording of usage errors.
Does not own: what commands do; which there are (main).

Always holds: a wrong command line runs nothing, prints one line on standard error and exits with 2.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import cyclopts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_USAGE = 2


def call(name: str, command: Callable[..., object], tokens: Sequence[str]) -> int:
    """Run a command with its tokens; returns the exit code it answers (None counts as 0).

    Args:
        name: as typed after `flow`.
        command: positional parameters are arguments, keyword-only ones options; its docstring is the help.
        tokens: what follows the name.
    """
    app = cyclopts.App(
        name=f"flow {name}", version_flags=[], help_flags=["--help", "-h"], help_format="plaintext"
    )
    app.default(command)
    try:
        answer = app(list(tokens), exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        print(f"flow {name}: {_sentence(error)}; `flow {name} --help` shows all options", file=sys.stderr)
        return _USAGE
    return answer if isinstance(answer, int) else 0


def _sentence(error: cyclopts.CycloptsError) -> str:
    return " ".join(str(error).split()).rstrip(".")
