"""flow version: the version of FlowRx that is installed."""

from __future__ import annotations

from flowruntime.installed import version as installed_version


def version() -> int:
    """Print the version."""
    print(f"flowrx {installed_version()}")
    return 0
