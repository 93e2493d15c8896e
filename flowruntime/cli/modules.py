"""Modules of users on the command line: importing them, calling what makes a workflow, saying what failed.

Owns: where they are looked for, and the text of a failure: what was raised, and the user's own line.
Does not own: what is done with a module (project, target).

Always holds: whatever a module does when it is imported (raise, exit) becomes a message; what it prints then
goes to standard error, since standard output is for results.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flowruntime.cli.failures import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

T = TypeVar("T")

_LOOKED_FOR = "modules are looked for where they are installed, beside flow.toml, and in the current folder"


def with_folders(folders: Iterable[Path]) -> None:
    """Let modules be imported from these folders, after what is installed.

    After it, so that a project's own folder named like one of our packages hides nothing.
    """
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def imported(name: str) -> ModuleType:
    """The module.

    Raises:
        UsageError: it cannot be imported; the message begins with "module ... cannot be imported".
    """
    try:
        return _quietly(lambda: import_module(name))
    except (Exception, SystemExit) as fault:
        reason = _missing(name, fault) if isinstance(fault, ModuleNotFoundError) else _told(fault)
        raise UsageError(f"module {name!r} cannot be imported: {reason}") from fault


def is_module(name: str) -> bool:
    """Whether there is a module of that name; it is not imported, so the name has no dots."""
    try:
        return name.isidentifier() and find_spec(name) is not None
    except (ImportError, ValueError):  # a module without a specification, such as __main__
        return False


def called(function: Callable[[], T], what: str) -> T:
    """What a user's function without arguments gives.

    Raises:
        UsageError: it needs arguments, has to be awaited, or raises.
    """
    if inspect.iscoroutinefunction(function):
        raise UsageError(f"{what} is a coroutine; give a workflow, or a plain function that makes one")
    try:
        needed = [
            each.name
            for each in inspect.signature(function).parameters.values()
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):  # written in C
        needed = []
    if needed:
        raise UsageError(
            f"{what} needs arguments ({', '.join(needed)}); give a workflow, or a function that makes one"
            " without any"
        )
    try:
        return _quietly(function)
    except (Exception, SystemExit) as fault:
        raise UsageError(f"{what} failed: {_told(fault)}") from fault


def _quietly(work: Callable[[], T]) -> T:
    with redirect_stdout(sys.stderr):
        return work()


def _missing(name: str, fault: ModuleNotFoundError) -> str:
    if fault.name is None:
        return str(fault)
    if f"{name}.".startswith(f"{fault.name}."):
        return f"there is no module {fault.name!r}; {_LOOKED_FOR}"
    return f"it needs {fault.name!r}, which is not installed{_line_of(fault)}"


def _told(fault: BaseException) -> str:
    if isinstance(fault, SyntaxError):
        where = "" if fault.filename is None else f" ({fault.filename}:{fault.lineno})"
        return f"SyntaxError: {fault.msg}{where}"
    if isinstance(fault, SystemExit):
        return f"it ends the process, with {fault.code!r}{_line_of(fault)}"
    return f"{type(fault).__name__}: {fault}{_line_of(fault)}"


def _line_of(fault: BaseException) -> str:
    """The last line of the user's own, as ` (file:line)`."""
    own = [
        frame
        for frame in traceback.extract_tb(fault.__traceback__)
        if not frame.filename.startswith("<") and not _is_ours(Path(frame.filename))
    ]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _is_ours(file: Path) -> bool:
    """Of the engine or of Python, which a user cannot mend."""
    engine = Path(__file__).resolve().parents[2]
    ours = [engine / name for name in ("flowcore", "flowruntime", "flownodes", "connectors")]
    return any(file.is_relative_to(folder) for folder in (*ours, Path(inspect.__file__).parent))
