"""Start-up: importing the runtime, and the whole command `flow version`, in fresh interpreters."""

from __future__ import annotations

import sys

from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.fan_out import ms
from benchmarks.harness import Benchmark, Contender, Match, Row
from benchmarks.summary import Bar

FLOW = "import sys; from flowruntime.cli.main import main; sys.exit(main())"
"""What the installed script `flow` does, in this environment whatever is on the path."""


def nothing(**_: object) -> None:
    """An import has no result; a failing one raises."""


def _import(
    name: str, module: str, environment: Environment = Environment.OURS, *, note: str = ""
) -> Contender:
    return Contender(
        name, "benchmarks.peers.fresh:importing", environment, params={"module": module}, note=note
    )


def _command(name: str, *arguments: str) -> Contender:
    return Contender(
        name, "benchmarks.peers.fresh:command", Environment.OURS, params={"arguments": arguments}
    )


BENCHMARK = Benchmark(
    "startup",
    (
        Match(
            contenders=(
                _import(
                    "import flowruntime",
                    "flowruntime:FlowRuntime",
                    note="with FlowRuntime, should its import be deferred",
                ),
                _import("import reactivex", "reactivex"),
                _import("import asyncio", "asyncio"),
                _import("LangGraph", "langgraph.graph", Environment.PEERS),
            ),
            rows=(Row("import of flowruntime", "ms", ms, bars=(Bar("<=", 0.85, "import reactivex"),)),),
            expected=nothing,
            params={},
            quick={},
            repeats=15,
        ),
        Match(
            contenders=(
                _command("flow version", "-c", FLOW, "version"),
                _command("import cyclopts", "-c", "import cyclopts"),
                _command("python that does nothing", "-c", "pass"),
            ),
            rows=(
                Row("flow version, the whole process", "ms", ms, bars=(Bar("<=", 1.25, "import cyclopts"),)),
            ),
            expected=nothing,
            params={},
            quick={},
            repeats=15,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
