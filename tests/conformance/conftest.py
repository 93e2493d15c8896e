"""A PostgreSQL server for the stores."""

from tests.servers.fixtures import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]
