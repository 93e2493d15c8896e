"""Urls of stores: each kind is read, what is wrong is refused, and no part of a password is ever shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.store_errors import StoreUrlError
from flowruntime.state.store.memory import MemoryStore
from flowruntime.state.store.opening import open_store
from flowruntime.state.store.postgres import PostgresStore
from flowruntime.state.store.sqlite import SqliteStore
from flowruntime.state.store.url import read_store_url

SECRET = "tercesym"[::-1]
"""Not as it is written: a traceback shows lines of this file."""


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("memory:", MemoryStore, "memory:"),
        ("sqlite:store.sqlite", SqliteStore, "sqlite:/base/store.sqlite"),
        ("sqlite:/var/lib/a b.sqlite", SqliteStore, "sqlite:/var/lib/a b.sqlite"),
        ("postgresql://u:p@db.example:5433/flows", PostgresStore, "postgresql://db.example:5433/flows"),
        ("postgres://u@h", PostgresStore, "postgres://h"),
        ("postgresql:///flows?host=/run/pg&password=p", PostgresStore, "postgresql:///flows"),
        ("postgresql://u:p@/flows?host=/run/pg", PostgresStore, "postgresql:///flows"),
        ("postgresql://u:p@[::1]:5432/f?sslmode=require", PostgresStore, "postgresql://[::1]:5432/f"),
        ("postgresql://u:p@h1:1,h2:2/f?pool=3", PostgresStore, "postgresql://h1:1,h2:2/f"),
    ],
)
def test_a_url_leads_to_its_store_and_is_shown_without_secrets(url: str, kind: type, shown: str) -> None:
    store = open_store(url, base=Path("/base"))
    assert isinstance(store, kind)
    assert store.url == shown
    assert "p@" not in repr(store)


@pytest.mark.parametrize(
    "url",
    [
        *("", "memory", "memory:x", "sqlite", "sqlite:", "sqlite:///a", "sqlite:a\0b"),
        *("mysql://h/d", "store.sqlite"),
        *("postgresql:", "postgresql:h/d", "postgresql://h/a/b", "postgresql://h:port/d", "postgresql://h/d?a"),
        "postgresql://h/d?user=\ud800",
        *("postgresql://h/d?pool=0", "postgresql://h/d?pool=x", "postgresql://h/d?pool=1001", "postgresql://[::1/d"),
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlError, match=r"known are|names no file|not understood|option pool"):
        open_store(url)


@pytest.mark.parametrize("given", [None, 5, b"memory:", Path("store.sqlite")])
def test_what_is_no_text_is_refused(given: object) -> None:
    with pytest.raises(StoreUrlError, match="a store is named by a url, got"):
        open_store(given)  # pyright: ignore[reportArgumentType] - a user's call


def test_options_are_the_drivers_but_for_the_pool() -> None:
    target = read_store_url("postgresql://u:p%40@h/d?pool=3&search_path=flows&application_name=a+b")
    assert target.pool == 3
    assert target.options == {"search_path", "application_name"}
    assert target.dsn == "postgresql://u:p%40@h/d?search_path=flows&application_name=a+b"
    assert "p%40" not in repr(target)


@given(
    st.text("/@:?#[]%&= 0", max_size=4),
    st.text("/@:?#[]%&= 0", max_size=4),
    st.sampled_from(["postgresql://user:{}@host/db", "postgresql://user:{}@host:5432/db?sslmode=require"])
    | st.sampled_from(
        ["postgresql:///db?password={}", "mysql://user:{}@host/db", "postgresql//user:{}@host/db"]
    ),
)
def test_whatever_a_password_holds_nothing_of_it_is_shown(before: str, after: str, form: str) -> None:
    """Also where it was not escaped, so that the url means something else than was meant."""
    seen: list[object] = []
    try:
        target = read_store_url(form.format(before + SECRET + after))
        seen += [target.shown, repr(target), repr(open_store(target))]
    except StoreUrlError as refused:
        seen += [
            *traceback.format_exception(refused),
            refused.facts(),
            refused.__cause__,
            refused.__context__,
        ]
    assert SECRET not in repr(seen)
