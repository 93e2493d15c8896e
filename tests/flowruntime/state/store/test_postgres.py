"""What is special about the PostgreSQL store: server and network fail, others use the database, too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flowcore.states import Completed, Running
from flowcore.store_errors import (
    StoreAccessError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreExtraError,
    StoreFormatError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreUrlError,
    StoreVersionError,
)
from flowruntime.state.store.entries import JournalEntry, new_execution
from flowruntime.state.store.postgres import PostgresStore
from flowruntime.state.store.schema import VERSION
from flowruntime.testing.conformance.store_subject import a_wait, an_execution, workflow
from tests.servers.postgres import PostgresServer, make_server, private_folder, remove

_OURS = "application_name = 'flowrx' AND datname = current_database()"


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Any]:
    driver: Any = asyncpg
    connection = await driver.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def password_of(url: str) -> str:
    return url.partition("@")[0].rpartition(":")[2]


async def refusal(url: str, kind: type[StoreError], **options: Any) -> StoreError:
    """What opening meets; nothing of the password is in anything that is said."""
    store = PostgresStore(url, **options)
    with pytest.raises(kind) as refused:
        await store.open()
    with pytest.raises(kind):
        await store.ping()
    await store.aclose()
    seen = "".join(traceback.format_exception(refused.value)) + repr(refused.value.facts()) + repr(store)
    assert password_of(url) not in seen
    assert refused.value.url == store.url
    assert refused.value.outcome == "nothing"
    return refused.value


# --- the way to the server ------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_an_error_that_may_be_tried_again(tmp_path: Path) -> None:
    fault = await refusal(f"postgresql://u:S3cr3t@/db?host={tmp_path}", StoreUnavailableError)
    assert fault.retriable
    assert "nothing was changed; try again when it is back" in fault.message


async def test_a_wrong_password_a_wrong_user_and_a_missing_database_are_said(postgres_url: str) -> None:
    right = password_of(postgres_url)
    for url, said in (
        (postgres_url.replace(right, "S3cr3t"), "password authentication failed"),
        (postgres_url.replace("flow:", "stranger:"), "password authentication failed"),
        (postgres_url.replace("/test_", "/none_"), "there is no such database"),
    ):
        fault = await refusal(url, StoreAccessError)
        assert said in fault.message
        assert not fault.retriable


async def test_an_option_the_driver_does_not_know_is_the_urls_fault(postgres_url: str) -> None:
    fault = await refusal(f"{postgres_url}&sslmode=S3cr3t", StoreUrlError)
    assert "S3cr3t" not in "".join(traceback.format_exception(fault))


def test_without_the_driver_the_error_names_the_extra() -> None:
    """Where the package is not installed; the rest of FlowRx does not need it."""
    program = (
        "import asyncio, sys; sys.modules['asyncpg'] = None\n"
        "from flowruntime import open_store\n"
        "asyncio.run(open_store('postgresql://u:p@h/d').ping())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert StoreExtraError.__name__ in done.stderr
    assert "store postgresql://h/d: it needs asyncpg" in done.stderr
    assert "uv pip install 'flowrx[postgres]'" in done.stderr


# --- what is in the database ----------------------------------------------------------------------------


async def test_a_schema_of_a_newer_version_is_refused_and_left_as_it_was(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.workflows.put(workflow())
    async with connected(postgres_url) as connection:
        await connection.execute("UPDATE flow_store SET version = $1", VERSION + 1)
    fault = await refusal(postgres_url, StoreVersionError)
    assert (fault.facts()["found"], fault.facts()["known"]) == (VERSION + 1, VERSION)
    async with connected(postgres_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM flow_workflows") == 1
        assert await connection.fetchval("SELECT version FROM flow_store") == VERSION + 1


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE flow_waits (theirs TEXT)",
        "CREATE TABLE flow_store (theirs TEXT)",
        "CREATE TABLE flow_store (mark TEXT, version BIGINT); INSERT INTO flow_store VALUES ('theirs', 1)",
    ],
)
async def test_tables_of_another_program_are_left_as_they_were(postgres_url: str, theirs: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute(theirs)
    fault = await refusal(postgres_url, StoreFormatError)
    assert "that is not a store's" in fault.message
    async with connected(postgres_url) as connection:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert len(names) == 1


async def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database(encoding="LATIN1")
    fault = await refusal(postgres_server.url(name), StoreFormatError)
    assert "Create one with ENCODING 'UTF8'" in fault.message
    postgres_server.drop_database(name)


async def test_many_that_open_an_empty_database_at_once_make_one_schema(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    assert (await stores[0].workflows.put(workflow())).version == 1
    assert (await stores[7].workflows.get("triage")).version == 1
    for store in stores:
        await store.aclose()


async def test_a_user_who_may_not_create_tables_can_use_those_of_another(postgres_url: str) -> None:
    user = f"guest_{postgres_url.rpartition('/test_')[2][:6]}"
    guest = postgres_url.replace("flow:", f"{user}:").replace(password_of(postgres_url), "guest")
    async with connected(postgres_url) as connection:
        await connection.execute(f"CREATE USER {user} PASSWORD 'guest'")
        try:
            fault = await refusal(guest, StoreAccessError)
            assert "CREATE on the schema, once" in fault.message
            async with PostgresStore(postgres_url) as store:
                await store.open()
            await connection.execute(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
            )
            async with PostgresStore(guest) as store:
                await store.workflows.put(workflow())
        finally:
            await connection.execute(f"DROP OWNED BY {user}; DROP USER {user}")


async def test_stores_of_two_schemas_know_nothing_of_each_other(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("CREATE SCHEMA other")
    async with (
        PostgresStore(postgres_url) as one,
        PostgresStore(f"{postgres_url}&search_path=other") as other,
    ):
        await one.workflows.put(workflow())
        assert (await other.workflows.list()).items == ()


async def test_what_somebody_changed_by_hand_is_not_given_out(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store, connected(postgres_url) as connection:
        await an_execution(store)
        await connection.execute("""UPDATE flow_executions SET inputs = '{"text":"e2"}'""")
        with pytest.raises(StoreDamagedError, match="execution 'e1' is damaged"):
            await store.executions.get("e1")
        await connection.execute("DROP TABLE flow_journal")
        with pytest.raises(StoreDamagedError, match="tables of the store are gone or changed"):
            await store.journal.get_all("e1")


# --- time and durability --------------------------------------------------------------------------------


async def test_a_statement_that_is_kept_waiting_is_given_up(postgres_url: str) -> None:
    entry = JournalEntry(execution_id="e1", node="n")
    store = PostgresStore(postgres_url, statement_timeout=timedelta(milliseconds=200))
    await store.open()
    async with connected(postgres_url) as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE flow_journal")
            with pytest.raises(StoreTimeoutError, match="nothing was changed") as busy:
                await store.journal.put([entry])
            assert busy.value.retriable
            assert busy.value.outcome == "nothing"
        await store.journal.put([entry])
        assert len(await store.journal.get_all("e1")) == 1
    await store.aclose()


@pytest.mark.parametrize("turns", [0, 1, 5, 20, 60])
async def test_closing_finishes_more_writes_than_there_are_connections(postgres_url: str, turns: int) -> None:
    """However far they got: waiting for a connection, connecting, or waiting for the answer."""
    for attempt in range(4):
        entries = [JournalEntry(execution_id=f"e{attempt}", node="n", call=call) for call in range(50)]
        store = PostgresStore(postgres_url)
        await store.open()
        writes = [asyncio.ensure_future(store.journal.put([entry])) for entry in entries]
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.aclose()
        done = await asyncio.gather(*writes, return_exceptions=True)
        begun = [entry.call for entry, each in zip(entries, done, strict=True) if each is None]
        assert all(each is None or isinstance(each, StoreClosedError) for each in done)
        assert turns == 0 or len(begun) == len(entries)
        async with PostgresStore(postgres_url) as store:
            assert sorted(each.call for each in await store.journal.get_all(f"e{attempt}")) == begun


async def test_closing_cuts_what_a_server_never_answers_and_leaves_no_connection(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, close_timeout=timedelta(milliseconds=100))
    await store.open()
    async with connected(postgres_url) as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE flow_journal")
            entries = [JournalEntry(execution_id="e1", node="n", call=call) for call in range(30)]
            writes = [asyncio.ensure_future(store.journal.put([entry])) for entry in entries]
            await asyncio.sleep(0)
            await store.aclose()
            done = await asyncio.gather(*writes, return_exceptions=True)
            outcomes = {each.outcome if isinstance(each, StoreError) else repr(each) for each in done}
            assert outcomes <= {"unknown", "nothing"}
        mine = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'flowrx' AND datname = current_database()"
        )
        left = -1
        for _ in range(500):  # the server notices a cut connection in its own time
            left = await connection.fetchval(mine)
            if not left:
                break
            await asyncio.sleep(0.01)
        assert left == 0


async def test_a_commit_is_on_disk_whatever_the_database_is_set_to(postgres_url: str) -> None:
    """With `synchronous_commit` off, the server answers before it has written."""
    async with connected(postgres_url) as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    for url in (postgres_url, f"{postgres_url}&synchronous_commit=off&application_name=mine"):
        async with PostgresStore(url) as store:
            settings = [
                (await store._database.read(f"SHOW {name}", doing="look"))[0][0]
                for name in ("synchronous_commit", "statement_timeout", "application_name")
            ]
        assert settings == ["on", "30s", "mine" if "mine" in url else "flowrx"]


async def test_no_more_connections_are_used_than_the_pool_has(postgres_url: str) -> None:
    async with PostgresStore(f"{postgres_url}&pool=2") as store, connected(postgres_url) as connection:
        entries = [JournalEntry(execution_id="e1", node="n", call=call) for call in range(40)]
        await asyncio.gather(*(store.journal.put([entry]) for entry in entries))
        used = await connection.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {_OURS}")  # noqa: S608 - ours
        assert used <= 2
        assert len(await store.journal.get_all("e1")) == 40


async def test_a_connection_that_was_cut_is_replaced(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store, connected(postgres_url) as connection:
        await an_execution(store)
        for _ in range(5):
            await connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_OURS}")  # noqa: S608 - ours
            assert (await store.executions.get("e1")).state.name == "pending"
        await store.waits.open(a_wait())


async def test_a_write_cut_in_the_middle_says_that_its_outcome_is_unknown(postgres_url: str) -> None:
    """The server has it, its answer is lost: a lock holds the statement until its connection is gone."""
    async with PostgresStore(postgres_url) as store, connected(postgres_url) as connection:
        execution = await an_execution(store, running=True)
        async with connection.transaction():
            await connection.execute("LOCK TABLE flow_executions")
            step = asyncio.ensure_future(store.executions.step(execution, Completed(), at=2.0, by="me"))
            waiting = f"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND {_OURS}"  # noqa: S608 - a constant
            while (pid := await connection.fetchval(waiting)) is None:
                pass
            await connection.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(StoreUnavailableError, match="read before you write again") as lost:
                await step
        assert lost.value.outcome == "unknown"
        assert lost.value.retriable
        assert (await store.executions.step(execution, Completed(), at=2.0, by="me")).revision == 1


# --- restarts -------------------------------------------------------------------------------------------


@pytest.fixture(name="own_server")
def _own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop and kill."""
    folder = private_folder()
    server = make_server(folder)
    server.start()
    yield server
    server.stop()
    remove(folder)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_store_outlives_restarts_and_kills_of_its_server(own_server: PostgresServer) -> None:
    database = own_server.create_database()
    async with PostgresStore(own_server.url(database)) as store:
        head = await store.workflows.put(workflow())
        for number, end in enumerate((own_server.stop, own_server.kill, own_server.stop)):
            execution = new_execution(f"e{number}", head, number, at=1.0)
            await store.executions.create(execution)
            await asyncio.to_thread(end)
            for attempt in (
                store.ping(),
                store.executions.step(execution, Running(), at=2.0),
                store.waits.due(1.0),
            ):
                with pytest.raises(StoreUnavailableError) as down:
                    await attempt
                assert down.value.retriable
            await asyncio.to_thread(own_server.start)
            assert (await store.executions.get(f"e{number}")).inputs == number
            await store.executions.step(execution, Running(), at=2.0)
        assert own_server.kill_backends(database) > 0
        await asyncio.to_thread(own_server.wait_until_ready)
        assert len((await store.executions.list()).items) == 3
