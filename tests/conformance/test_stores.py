"""Every store of ours passes the contract of stores.

Owns: the subjects. The contract itself is flowruntime.testing.conformance.store.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flowruntime.state.store.memory import MemoryStore
from flowruntime.state.store.postgres import PostgresStore
from flowruntime.state.store.sqlite import SqliteStore
from flowruntime.testing.conformance.store import StoreConformance
from flowruntime.testing.conformance.store_subject import StoreSubject


class TestMemory(StoreConformance):
    @pytest.fixture
    def subject(self) -> StoreSubject:
        return StoreSubject(make=MemoryStore, durable=False)


class TestSqlite(StoreConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> StoreSubject:
        return StoreSubject(make=lambda: SqliteStore(tmp_path / "new folder" / "store.sqlite"))


class TestPostgres(StoreConformance):
    @pytest.fixture
    def subject(self, postgres_url: str) -> StoreSubject:
        return StoreSubject(make=lambda: PostgresStore(postgres_url))
