"""The command `flow`: finds the command that was asked for and runs it alone.

Owns: the list of commands, `flow --help`, commands of other packages (entry points `flowrx.commands`),
turning errors into messages and exit codes.
Does not own: what a command does; each is a module of its own with a function of the same name.

Always holds: nothing is imported but the command that runs; `flow version` and `flow --help` import nothing
of the engine. Exit: 0 all succeeded, 1 failed or partial, 2 usage or validation, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

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
    "nodes": "list node types, or show one",
    "schema": "print the JSON Schema of workflow files",
    "events": "show a recorded events file",
    "doctor": "check the installation",
    "version": "print the version",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if not tokens or tokens[0] in ("--help", "-h", "help"):
        print(_overview())
        return OK if tokens else USAGE
    if tokens[0] in ("--version", "-V"):
        tokens[0] = "version"
    name, *rest = tokens
    if name == "version" and not rest:  # no options to parse: the parser is not imported
        from flowruntime.cli.version import version

        return version()
    command = _find(name)
    if command is None:
        return _unknown(name)
    return _guarded(name, command, rest)


def _find(name: str) -> Callable[..., object] | None:
    from importlib import import_module

    if name in COMMANDS:
        command: Callable[..., object] = getattr(import_module(f"flowruntime.cli.{name}"), name)
        return command
    plugin = next((point for point in _plugins() if point.name == name), None)
    return None if plugin is None else plugin.load()


def _plugins() -> list[EntryPoint]:
    """Commands of other packages; ours cannot be replaced."""
    from importlib.metadata import entry_points

    return [point for point in entry_points(group=GROUP) if point.name not in COMMANDS]


def _guarded(name: str, command: Callable[..., object], tokens: list[str]) -> int:
    """Run one command; what it raises on purpose becomes a message and an exit code."""
    import os

    from flowruntime.cli.failures import exit_code_of
    from flowruntime.cli.parsing import call

    try:
        code = call(name, command, tokens)
        sys.stdout.flush()  # here, where a reader that has gone is caught, and not when Python exits
        return code
    except BrokenPipeError:
        # Whoever read our output has gone. Python flushes stdout at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("flow: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        known = exit_code_of(name, error)
        if known is None:
            raise
        return known


def _unknown(name: str) -> int:
    from flowcore.findings import did_you_mean

    names = [*COMMANDS, *(point.name for point in _plugins())]
    print(f"flow: unknown command {name!r}; {did_you_mean(name, names)}", file=sys.stderr)
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
