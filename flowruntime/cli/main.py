"""The command `flow`: finds the command that was asked for and runs it alone.

Owns: the list of commands, `flow --help`, commands of other packages (entry points `flowrx.commands`),
turning errors into messages and exit codes.
Does not own: what a command does; each is a module of its own with a function of the same name.

Always holds: nothing is imported but the command that runs; `flow version` and `flow --help` import nothing
of the engine. Exit: 0 all succeeded, 1 failed or partial, 2 usage or validation, 130 interrupted.
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

    from flowruntime.cli.parsing import Group

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

GROUP: Final = "flowrx.commands"

COMMANDS: Final = {
    "init": "make a project that runs, with a node of your own and a test of it",
    "validate": "check a workflow file; every problem at once",
    "plan": "show stages, limits, bounds and guarantees of a workflow",
    "run": "run a workflow: as a stream, or as a request with --input",
    "resume": "go on with an execution that waits, with an answer or after a crash",
    "waits": "list what executions wait for",
    "nodes": "list node types, or show one",
    "schema": "print the JSON Schema of workflow files",
    "events": "show a recorded events file",
    "dlq": "list, show, edit and redrive dead letters",
    "doctor": "check the installation",
    "version": "print the version",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    from flowruntime.cli.streams import OutputError, prepare, seal

    prepare()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    lost: OSError | None = None
    with _Terminated():
        try:
            code = _dispatch(tokens)
        except KeyboardInterrupt:
            _tell("flow: interrupted")
            code = INTERRUPTED
        except OutputError as fault:
            code, lost = FAILED, fault
        lost = seal() or lost
    if lost is None:
        return code
    if lost.errno != errno.EPIPE:  # a reader that has gone wants to hear no more
        _tell(f"flow {tokens[0] if tokens else ''}: cannot write to standard output: {lost.strerror}")
    return code or FAILED


def _dispatch(tokens: list[str]) -> int:
    if not tokens:
        _tell(_overview())
        return USAGE
    if tokens[0] == "help" and len(tokens) > 1:
        tokens = [tokens[1], "--help"]
    if tokens[0] in ("--help", "-h", "help"):
        print(_overview())
        return OK
    if tokens[0] in ("--version", "-V"):
        tokens = ["version", *tokens[1:]]
    name, *rest = tokens
    if name == "version" and not rest:  # no options to parse: the parser is not imported
        from flowruntime.cli.version import version

        return version()
    command = _find(name)
    return _unknown(name) if command is None else _guarded(name, command, rest)


class _Terminated:
    """SIGTERM as an interrupt, so that a command clears away what it began; a run has handlers of its own."""

    def __enter__(self) -> None:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @staticmethod
    def _interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt


def _tell(text: str) -> None:
    """One line on standard error, if anybody reads that."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _find(name: str) -> Callable[..., object] | Group | None:
    from importlib import import_module

    if name in COMMANDS:
        command: Callable[..., object] | Group = getattr(import_module(f"flowruntime.cli.{name}"), name)
        return command
    plugin = next((point for point in _plugins() if point.name == name), None)
    return None if plugin is None else plugin.load()


def _plugins() -> list[EntryPoint]:
    """Commands of other packages; ours cannot be replaced."""
    from importlib.metadata import entry_points

    return [point for point in entry_points(group=GROUP) if point.name not in COMMANDS]


def _guarded(name: str, command: Callable[..., object] | Group, tokens: list[str]) -> int:
    """Run one command; what it raises on purpose becomes a message and an exit code."""
    from flowruntime.cli.failures import exit_code_of
    from flowruntime.cli.parsing import call

    try:
        return call(name, command, tokens)
    except Exception as error:
        known = exit_code_of(name, error)
        if known is None:
            raise
        return known


def _unknown(name: str) -> int:
    from flowcore.findings import did_you_mean

    names = [*COMMANDS, *(point.name for point in _plugins())]
    _tell(f"flow: unknown command {name!r}; {did_you_mean(name, names)}")
    return USAGE


def _overview() -> str:
    """`flow --help`."""
    plugins = {point.name: f"from {point.value.partition(':')[0]}" for point in _plugins()}
    width = max(len(name) for name in (*COMMANDS, *plugins))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in {**COMMANDS, **plugins}.items()]
    return "\n".join(
        [
            "Usage: flow COMMAND [OPTIONS]",
            "",
            "Streaming workflows: declare a graph once, run it as a request or as a stream.",
            "",
            "Commands:",
            *lines,
            "",
            "`flow COMMAND --help` shows its options. Results go to standard output, everything else to",
            "standard error. Exit: 0 all succeeded, 1 failed or partial, 2 usage or validation,",
            "130 interrupted.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
