"""Dead letters in SQLite: another's database is not touched, a full disk keeps what was there."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.sqlite.dead_letters import DeadLettersConfig, DeadLettersSink
from connectors.sqlite.letters import MAGIC, SqliteLetters
from flowcore.connector import Rows
from flowcore.errors import LetterNotFoundError, PathRefusedError, SinkError
from flowruntime.testing.conformance.letters import sample_letter
from flowruntime.testing.contexts import StandaloneSinkContext
from tests.connectors.files.test_files_sink import file_size_limit


async def opened(path: Path) -> SqliteLetters:
    store = SqliteLetters(str(path))
    await store.open(StandaloneSinkContext())
    return store


def ids(*numbers: int) -> list[str]:
    return [sample_letter(number).id for number in numbers]


async def test_a_database_of_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE letters (id TEXT)")
    before = path.read_bytes()
    store = await opened(path)
    for call in (store.write([sample_letter(1)]), store.list(), store.mark(ids(1), "redriven")):
        with pytest.raises(SinkError, match="is a database of something else; name another file"):
            await call
    await store.close()
    assert path.read_bytes() == before


async def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dead.sqlite"
    store = await opened(path)
    await store.write([sample_letter(1)])
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    store = await opened(path)
    with pytest.raises(SinkError, match="dead letters of version 2, this is version 1"):
        await store.write([sample_letter(2)])
    await store.close()


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"x" * 500])
async def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dead.sqlite"
    path.write_bytes(content)
    store = await opened(path)
    with pytest.raises(SinkError, match=r"cannot write the dead letters in .*check that it is a database"):
        await store.write([sample_letter(1)])
    assert path.read_bytes() == content
    await store.close()


async def test_a_full_disk_keeps_what_was_there_and_the_letters_can_be_written_again(tmp_path: Path) -> None:
    store = await opened(tmp_path / "dead.sqlite")
    await store.write([sample_letter(1)])
    large = [sample_letter(number, record="x" * 50_000) for number in range(2, 12)]
    with file_size_limit(200_000), pytest.raises(SinkError, match="cannot write the dead letters"):
        await store.write(large)
    assert [filed.id for filed in (await store.list()).letters] == ids(1)
    await store.write(large)
    assert len((await store.list()).letters) == 11
    await store.close()


async def test_a_letter_written_twice_is_one_letter_with_its_state(tmp_path: Path) -> None:
    store = await opened(tmp_path / "dead.sqlite")
    await store.write([sample_letter(1)])
    await store.mark(ids(1), "redriven")
    await store.write([sample_letter(1), sample_letter(2)])
    found = [(filed.id, filed.state) for filed in (await store.list()).letters]
    assert found == [(ids(1)[0], "redriven"), (ids(2)[0], "pending")]
    await store.close()


async def test_a_row_that_cannot_be_read_is_named_and_the_others_are_given(tmp_path: Path) -> None:
    path = tmp_path / "dead.sqlite"
    store = await opened(path)
    await store.write([sample_letter(1), sample_letter(2), sample_letter(3)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE letters SET letter = ? WHERE id = ?", (b'{"kind":"mark"}', ids(2)[0]))
    page = await store.list()
    assert [filed.id for filed in page.letters] == ids(1, 3)
    assert [entry.where for entry in page.broken] == [f"{path}: letter {ids(2)[0]}"]
    with pytest.raises(SinkError, match="cannot be read"):
        await store.get(ids(2)[0])
    await store.close()


async def test_reading_makes_no_database(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "dead.sqlite"
    store = await opened(path)
    assert (await store.list()).letters == ()
    with pytest.raises(LetterNotFoundError):
        await store.get("nobody")
    await store.close()
    assert not path.parent.exists()


async def test_the_file_says_what_it_is_and_a_path_outside_the_roots_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dead.sqlite"
    store = await opened(path)
    await store.write([])
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (MAGIC,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    with pytest.raises(PathRefusedError):
        await SqliteLetters(str(path)).open(StandaloneSinkContext(roots=[str(tmp_path / "allowed")]))


async def test_as_a_node_it_takes_letters_and_refuses_other_rows_one_by_one(tmp_path: Path) -> None:
    """So the lines of a dead.jsonl can be moved into a database by a workflow."""
    config = DeadLettersConfig(path=str(tmp_path / "dead.sqlite"))
    sink = DeadLettersSink(config)
    await sink.open(StandaloneSinkContext())
    line = msgspec.json.decode(msgspec.json.encode(sample_letter(2)))
    refused = await sink.write(Rows([sample_letter(1), {"a": 1}, line, "text", None]))
    assert sorted(refused) == [1, 3, 4]
    assert all("is no dead letter" in str(error) for error in refused.values())
    await sink.close()
    store = DeadLettersSink.dead_letters(config)
    await store.open(StandaloneSinkContext())
    assert [filed.letter for filed in (await store.list()).letters] == [sample_letter(1), sample_letter(2)]
    await store.close()


async def test_a_store_that_finds_another_one_making_the_database_is_no_stranger_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one commits between a look at the marks and a look at the tables."""
    path, connect = tmp_path / "dead.sqlite", sqlite3.connect

    async def faster() -> None:
        other = await opened(path)
        await other.write([sample_letter(1)])
        await other.close()

    class Interrupted(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "sqlite_master" in sql and sqlite3.connect is not connect:
                monkeypatch.setattr(sqlite3, "connect", connect)
                asyncio.run(faster())  # this is a thread of its own
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Interrupted))
    store = await opened(path)
    await store.write([sample_letter(2)])
    found = await store.list()
    await store.close()
    assert sqlite3.connect is connect
    assert sorted(filed.id for filed in found.letters) == sorted(ids(1, 2))
