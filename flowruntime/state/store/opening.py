"""Opening a store by its url. Owns: which url is which store."""

from __future__ import annotations

from pathlib import Path

from flowruntime.state.store.protocol import Store
from flowruntime.state.store.url import StoreUrl, read_store_url


def open_store(url: str | StoreUrl, *, base: Path | None = None) -> Store:
    """The store at `url`; it is reached when it is used first, or by `async with`.

        async with open_store("sqlite:.flow/store.sqlite") as store:
            await store.workflows.put(workflow)

    Args:
        url: `memory:`, `sqlite:PATH`, or `postgresql://...` (needs the extra `postgres`).
        base: folder that relative paths begin at; None: the current one.

    Raises:
        StoreUrlError: the url names no store.
    """
    target = url if isinstance(url, StoreUrl) else read_store_url(url, base=base)
    if target.kind == "memory":
        from flowruntime.state.store.memory import MemoryStore

        return MemoryStore()
    if target.kind == "sqlite":
        from flowruntime.state.store.sqlite import SqliteStore

        return SqliteStore(target.path)
    from flowruntime.state.store.postgres import PostgresStore

    return PostgresStore(target)
