"""The store of a runtime: where it comes from, when it is opened, who closes it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import RuntimeClosedError, ValidationFailedError
from flowcore.store_errors import StoreClosedError, StoreUrlError
from flowruntime import FlowRuntime, open_store
from flowruntime.cli.project import project_of
from flowruntime.state.store.memory import MemoryStore
from flowruntime.testing.conformance.store_subject import workflow

Flow = Callable[..., Any]


async def test_without_a_word_workflows_are_kept_in_memory() -> None:
    async with FlowRuntime(state_dir=None) as rt:
        head = await rt.store.workflows.put(workflow())
        assert (await rt.store.workflows.get(head.id)).workflow == workflow()
        assert rt.store is rt.store
        assert rt.store.url == "memory:"
        kept = rt.store
    with pytest.raises(StoreClosedError):
        await kept.ping()


async def test_a_url_is_opened_with_the_first_use_and_closed_with_the_runtime(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with FlowRuntime(state_dir=None, store=f"sqlite:{path}") as rt:
        result = await rt.execute(workflow(), {"source": "a"})
        assert result.ok
        assert not path.exists()
        await rt.store.workflows.put(workflow())
        assert path.exists()
        kept = rt.store
    with pytest.raises(StoreClosedError):
        await kept.ping()
    assert [each.name for each in tmp_path.iterdir()] == ["store.sqlite"]
    async with FlowRuntime(state_dir=None, store=f"sqlite:{path}") as rt:
        assert (await rt.store.workflows.get("triage")).workflow == workflow()


async def test_a_store_that_was_handed_over_stays_its_makers() -> None:
    async with MemoryStore() as store:
        async with FlowRuntime(state_dir=None, store=store) as rt:
            await rt.store.workflows.put(workflow())
        assert (await store.workflows.get("triage")).version == 1


async def test_a_runtime_whose_store_nobody_used_closes_all_the_same(tmp_path: Path) -> None:
    for store in (None, f"sqlite:{tmp_path / 's.sqlite'}", "postgresql://nobody@nowhere.invalid/none"):
        async with FlowRuntime(state_dir=None, store=store):
            pass
    assert list(tmp_path.iterdir()) == []
    rt = FlowRuntime(state_dir=None)
    await rt.aclose()
    with pytest.raises(RuntimeClosedError):
        _ = rt.store


def test_a_wrong_url_is_refused_when_the_runtime_is_made() -> None:
    for wrong in ("redis://h", 5, Path("store.sqlite")):
        with pytest.raises(StoreUrlError, match="known are memory:, sqlite:PATH"):
            FlowRuntime(store=wrong)  # pyright: ignore[reportArgumentType] - a user's call


def test_neither_runtime_nor_store_import_a_driver_before_it_is_needed() -> None:
    program = (
        "import sys, flowruntime; flowruntime.FlowRuntime(); assert 'sqlite3' not in sys.modules;"
        "flowruntime.open_store('postgresql://u@h/d'); assert 'asyncpg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_runtime_is_made_without_a_loop_and_used_with_one(tmp_path: Path) -> None:
    rt = FlowRuntime(state_dir=None, store=f"sqlite:{tmp_path / 's.sqlite'}")
    store = open_store("memory:")

    async def use() -> None:
        async with rt, store:
            await rt.store.ping()
            await store.ping()

    asyncio.run(use())


# --- flow.toml ------------------------------------------------------------------------------------------


def test_the_path_of_a_projects_store_begins_at_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    monkeypatch.setenv("STORE_NAME", "kept")
    (tmp_path / "flow.toml").write_text('store = "sqlite:.flow/${STORE_NAME}.sqlite"\n')
    project = project_of(inner)
    assert project.store is not None
    assert project.store.path == tmp_path / ".flow" / "kept.sqlite"
    (tmp_path / "flow.toml").write_text("")
    assert project_of(inner).store is None


def test_a_projects_store_is_the_runtimes_and_its_password_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text('store = "postgresql://u:S3cr3t@db/flows"\n')
    project = project_of(tmp_path)
    assert "S3cr3t" not in repr(project)
    rt = FlowRuntime(state_dir=None, store=project.store)
    assert rt.store.url == "postgresql://db/flows"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('store = "postgresql://u:S3cr/3t@h/d"', "is not understood"),
        ('store = "postgresql://u:${NOT_SET}@h/d"', "NOT_SET is not set"),
        ('store = "redis://S3cr3t@h"', "is no url of a store"),
        ("store = 5", "must be text"),
        ('stor = "memory:"', "did you mean 'store'"),
    ],
)
def test_a_wrong_store_is_a_problem_of_the_file_that_does_not_show_it(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "flow.toml").write_text(f"{text}\nroots = 5\n")
    with pytest.raises(ValidationFailedError) as refused:
        project_of(tmp_path)
    assert problem in str(refused.value)
    assert len(refused.value.problems) == 2
    assert "S3cr" not in str(refused.value)
