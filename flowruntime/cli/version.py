"""flow version: the version of FlowRx that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

DISTRIBUTION = "flowrx"


def version() -> int:
    """Print the version."""
    print(f"flowrx {installed_version()}")
    return 0


def installed_version() -> str:
    """Of the distribution; `unknown` when it runs from a folder that was never installed."""
    try:
        return installed(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown (not installed)"
