"""Every store of dead letters passes their contract.

Owns: the subjects. The contract itself is flowruntime.testing.conformance.letters.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.files.letters import FileLetters
from connectors.sqlite.letters import SqliteLetters
from flowruntime.testing.conformance.letters import DeadLetterStoreConformance, LetterStoreSubject
from flowruntime.testing.letters import CollectedLetters


class TestFiles(DeadLetterStoreConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> LetterStoreSubject:
        path = tmp_path / "new folder" / "dead.jsonl"
        return LetterStoreSubject(make=lambda: FileLetters(str(path)))


class TestSqlite(DeadLetterStoreConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> LetterStoreSubject:
        path = tmp_path / "new folder" / "dead.sqlite"
        return LetterStoreSubject(make=lambda: SqliteLetters(str(path)))


class TestCollected(DeadLetterStoreConformance):
    @pytest.fixture
    def subject(self) -> LetterStoreSubject:
        return LetterStoreSubject(make=CollectedLetters, durable=False)
