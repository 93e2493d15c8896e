"""Fixtures: a database of a real PostgreSQL server, for the conftest.py of who asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import NoPostgresError, PostgresServer, shared_server


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """One for the session, whatever the number of processes."""
    try:
        return shared_server()
    except NoPostgresError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
