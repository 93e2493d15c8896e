"""What a program pays for: importing FlowRx loads nothing a program may not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp", "asyncio", "logging", "opentelemetry", "reactivex", "rich", "sqlite3", "structlog",
    "yaml",
)  # fmt: skip
"""Loaded when something runs, is logged, read or sent."""

FOR_FAULTS = ("difflib", "fractions", "pathlib", "urllib.parse")
"""Loaded when a file is read, or a remedy looked for."""


@pytest.mark.parametrize(
    "statement",
    [
        "import flowruntime",
        "from flowruntime import FlowRuntime",
        "import flowcore",
        "from flowcore import Middleware, Workflow, node",
    ],
)
def test_an_import_loads_no_heavy_package(statement: str) -> None:
    looked_for = HEAVY if "Workflow" in statement else (*HEAVY, *FOR_FAULTS)
    program = f"{statement}; import sys; print([name for name in {looked_for!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_runtime_without_middleware_loads_nothing_of_it() -> None:
    program = (
        "from flowruntime import FlowRuntime; FlowRuntime(); import sys; "
        "print([name for name in sys.modules if 'middleware' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
