"""Which FlowRx this is. Imports nothing but the standard library, so that `flow version` is quick."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "flowrx"


def version() -> str:
    """Of the installed distribution; `unknown` when FlowRx runs from a folder that was never installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
