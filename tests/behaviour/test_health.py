"""Health of a runtime: what its workflows are connected to, asked where it works; stores and providers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from flowcore import Node, NodeContext, Workflow, node
from flowcore.connector import Rows, Sink
from flowcore.errors import DefinitionError, RuntimeClosedError
from flowcore.health import CheckResult, Health, HealthContext, HealthReport
from flowcore.values import SecretRef
from flownodes.llm.providers.local import LocalProvider
from flowruntime import FlowRuntime
from tests.behaviour.harness import Nothing, Script, kept, now, runtime, same, virtual
from tests.servers.llm import KEY, serving
from tests.servers.llm_formats import AnthropicMessages, OpenAIChat


class Asked(Script, type="health.source"):
    """A source that can be asked."""

    async def health(self, ctx: HealthContext) -> Health:
        return Health("ok", f"asked as {ctx.node_id} of {ctx.workflow_id}")


class Database(Sink[Nothing, Any], type="health.database"):
    """A sink whose system is away."""

    opened = 0

    async def open(self, ctx: Any) -> None:
        type(self).opened += 1

    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        return {}

    async def health(self, ctx: HealthContext) -> Health:
        raise ConnectionError("nobody listens")


class Value(Struct, frozen=True):
    """One input port."""

    value: Any


class Model(Node[Nothing, Value, Any], type="health.model"):
    """A node with a life cycle that can be asked."""

    def __init__(self, config: Nothing) -> None:
        super().__init__(config)
        self.ready = False

    async def initialize(self, ctx: NodeContext) -> None:
        self.ready = True

    async def execute(self, inputs: Value, ctx: NodeContext) -> Any:
        return inputs.value

    async def health(self, ctx: HealthContext) -> Health:
        return Health("ok", "loaded") if self.ready else Health("degraded", "not loaded yet")


def of(report: HealthReport, name: str) -> CheckResult:
    (found,) = [check for check in report.checks if check.name == name]
    return found


def names(report: HealthReport) -> list[str]:
    return [check.name for check in report.checks]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def whole() -> Workflow:
    wf = Workflow("whole")
    wf.chain(
        wf.add(Asked, id="s"), wf.add(Model, id="m"), wf.add(same, id="plain"), wf.add(Database, id="db")
    )
    return wf


async def forever() -> None:
    await asyncio.Event().wait()


@virtual
async def test_what_a_run_is_connected_to_is_asked_where_it_works() -> None:
    async with runtime() as rt:
        run = await rt.start(whole(), sources={"s": Asked([forever])})
        await asyncio.sleep(1)
        report = await rt.health_check()
        await run.cancel("enough")
    assert names(report) == ["memory", "event loop", "whole/s", "whole/m", "whole/db"]
    assert of(report, "whole/s").detail == "asked as s of whole"
    assert of(report, "whole/m").detail == "loaded"
    assert of(report, "whole/db").detail == "ConnectionError: nobody listens"
    assert report.state == "failing"
    assert [check.name for check in report.of("failing")] == ["whole/db"]


@virtual
async def test_a_workflow_that_does_not_run_can_be_asked_and_is_not_opened() -> None:
    Database.opened = 0
    async with runtime() as rt:
        report = await rt.health_check(workflow=whole())
        assert names(await rt.health_check()) == ["memory", "event loop"]
    assert of(report, "whole/m").detail == "not loaded yet"
    assert of(report, "whole/db").state == "failing"
    assert Database.opened == 0


@virtual
async def test_requests_are_asked_about_and_two_runs_of_one_workflow_each() -> None:
    wf = Workflow("r")
    wf.add(Model, id="m")
    async with runtime() as rt:
        await rt.execute(wf, {"value": 1})
        assert of(await rt.health_check(), "r/m").detail == "loaded"
        runs = [await rt.start(whole(), sources={"s": Asked([forever])}) for _ in range(2)]
        await asyncio.sleep(1)
        report = await rt.health_check()
        for run in runs:
            await run.cancel("enough")
    assert [name for name in names(report) if name.startswith("whole/m")] == ["whole/m", "whole/m #2"]


@virtual
async def test_a_user_may_have_something_more_asked() -> None:
    class Queue:
        async def health(self, ctx: HealthContext) -> Health:
            await ctx.sleep(timedelta(seconds=3))
            return Health("degraded", "1,000 messages wait")

    async with runtime() as rt:
        rt.add_health_check("queue", Queue())
        report = await rt.health_check()
        assert (report.state, of(report, "queue").latency_s) == ("degraded", 3.0)
        assert now() == 3.0
        report = await rt.health_check(timeout=timedelta(seconds=1))
        assert of(report, "queue").detail == "no answer within 1 s"
        with pytest.raises(DefinitionError, match="is a health check 'queue' already"):
            rt.add_health_check("queue", Queue())


@pytest.mark.parametrize("thing", [object(), None, "x"])
async def test_what_cannot_be_asked_is_refused_when_it_is_added(thing: Any) -> None:
    async with runtime() as rt:
        with pytest.raises(DefinitionError, match="has no coroutine `async def health"):
            rt.add_health_check("it", thing)


async def test_a_provider_a_node_names_is_asked_once_however_many_nodes_name_it() -> None:
    wf = Workflow("p")
    for name in ("a", "b"):
        wf.add("embedding.embed", id=name, config={"provider": "local"})
    unknown = Workflow("u")

    @node("health.generates")
    def generates(value: str, *, provider: str = "nobody") -> str:
        return value + provider

    unknown.add(generates, id="g")
    async with runtime() as rt:
        report = await rt.health_check(workflow=wf)
        assert [name for name in names(report) if "provider" in name] == ["provider local"]
        assert of(report, "provider local").detail == "all-MiniLM-L6-v2, on this machine"
        report = await rt.health_check(workflow=unknown)
    nobody = of(report, "provider nobody")
    assert nobody.state == "failing"
    assert nobody.detail.startswith("there is no provider 'nobody'; ")


def asks(endpoint: dict[str, Any], **others: Any) -> Workflow:
    wf = Workflow("asks")
    wf.add("llm.generate", id="g", config={"model": "m", "prompt": "{{ value }}", **endpoint, **others})
    return wf


async def test_a_provider_is_asked_where_the_node_has_it_with_the_key_the_node_has() -> None:
    async with serving(OpenAIChat()) as fake:
        where = {"provider": "openai", "base_url": fake.url, "api_key": SecretRef("MY_KEY")}
        async with FlowRuntime(
            secrets={"MY_KEY": KEY}, allow_private_networks=True, watchdog=None, state_dir=None
        ) as rt:
            report = await rt.health_check(workflow=asks(where))
            name = f"provider openai at 127.0.0.1:{fake.port}"
            assert of(report, name).state == "ok"
            assert [(seen.method, seen.path) for seen in fake.seen] == [("GET", "/v1/models")]
            assert fake.seen[0].headers["authorization"] == f"Bearer {KEY}"
            fake.raw(401, b'{"error": {"message": "wrong key", "code": "invalid_api_key"}}')
            report = await rt.health_check(workflow=asks(where))
            assert of(report, name).state == "failing"
            assert "check api_key" in of(report, name).detail
            assert KEY not in str(report)


async def test_endpoints_a_node_falls_back_to_are_asked_too_each_once() -> None:
    async with serving(OpenAIChat()) as one, serving(AnthropicMessages()) as two:
        first = {"provider": "openai", "base_url": one.url, "api_key": SecretRef("MY_KEY")}
        second = {"provider": "anthropic", "base_url": two.url, "api_key": SecretRef("MY_KEY"), "model": "m"}
        wf = asks(first, fallback=[second])
        wf.add("llm.generate", id="again", config={"model": "m", "prompt": "{{ value }}", **first})
        async with FlowRuntime(
            secrets={"MY_KEY": KEY}, allow_private_networks=True, watchdog=None, state_dir=None
        ) as rt:
            report = await rt.health_check(workflow=wf)
    assert [(each, of(report, each).state) for each in names(report) if "provider" in each] == [
        (f"provider openai at 127.0.0.1:{one.port}", "ok"),
        (f"provider anthropic at 127.0.0.1:{two.port}", "ok"),
    ]
    assert (len(one.seen), len(two.seen)) == (1, 1)


async def test_a_provider_that_cannot_be_opened_says_what_it_lacks() -> None:
    wf = asks({"provider": "openai", "api_key": SecretRef("NO_SUCH_KEY")})
    wf.add("llm.generate", id="h", config={"model": "m", "prompt": "x", "provider": "openai_compatible"})
    async with FlowRuntime(watchdog=None, state_dir=None) as rt:
        report = await rt.health_check(workflow=wf)
    assert of(report, "provider openai").state == "failing"
    assert "secret 'NO_SUCH_KEY' is not set" in of(report, "provider openai").detail
    assert "set base_url" in of(report, "provider openai_compatible").detail


async def test_the_address_of_a_server_on_this_machine_is_shown_with_what_would_allow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes from a variable, as a key does, and is no secret."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:11999")
    async with FlowRuntime(watchdog=None, state_dir=None) as rt:
        report = await rt.health_check(workflow=asks({"provider": "ollama"}))
    assert "allowed_hosts, as '127.0.0.1:11999'" in of(report, "provider ollama").detail


async def test_a_provider_given_in_code_is_asked_and_one_without_a_check_is_there() -> None:
    class Plain(LocalProvider):
        health = None  # pyright: ignore[reportAssignmentType] - a provider without a check

    async with runtime(llm_providers={"mine": LocalProvider, "plain": Plain}) as rt:
        wf = asks({"provider": "mine"})
        wf.add("llm.generate", id="h", config={"model": "m", "prompt": "x", "provider": "plain"})
        report = await rt.health_check(workflow=wf)
    assert of(report, "provider mine").detail == "all-MiniLM-L6-v2, on this machine"
    assert of(report, "provider plain").detail == "installed; it offers no check of its own"


async def test_the_positions_are_asked_once_it_is_used(tmp_path: Path) -> None:
    async with runtime(state_dir=str(tmp_path / "state")) as rt:
        assert "positions" not in names(await rt.health_check())
        wf = Workflow("s")
        wf.chain(wf.add(Script, id="s"), wf.add(kept(), id="k"))
        run = await rt.start(wf, sources={"s": Script([forever])})
        assert "can be made" in of(await rt.health_check(), "positions").detail
        await run.cancel("enough")
        await (await rt.start(wf, sources={"s": Script([[1]])})).wait()
        assert "1 positions" in of(await rt.health_check(), "positions").detail
    (tmp_path / "state" / "positions.sqlite").write_bytes(b"no database at all, but long enough" * 100)
    async with runtime(state_dir=str(tmp_path / "state")) as rt:
        rt._runs.positions()
        report = await rt.health_check()
    assert of(report, "positions").state == "failing"
    assert "SourceError" in of(report, "positions").detail


async def test_the_store_is_pinged_and_its_password_not_told(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with runtime(store=f"sqlite:{path}") as rt:
        assert of(await rt.health_check(), "store").state == "ok"
    path.write_bytes(b"no database at all, but long enough" * 100)
    async with runtime(store=f"sqlite:{path}") as rt:
        report = await rt.health_check()
    assert of(report, "store").state == "failing"
    assert "file is not a database" in of(report, "store").detail
    async with runtime(store="postgresql://u:hush@127.0.0.1:1/none") as rt:
        report = await rt.health_check()
    assert of(report, "store").state == "failing"
    assert "hush" not in of(report, "store").detail


async def test_files_are_asked_for_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("1\n")
    wf = Workflow("f")
    wf.chain(
        wf.add("files.source", id="in", config={"path": str(tmp_path / "in.jsonl")}),
        wf.add("files.sink", id="out", config={"path": str(tmp_path / "new" / "out.jsonl")}),
    )
    missing = Workflow("g")
    missing.chain(
        missing.add("files.source", id="in", config={"path": str(tmp_path / "no.jsonl")}),
        missing.add(
            "files.sink", id="out", config={"path": str(tmp_path / "no" / "x.jsonl"), "create_folder": False}
        ),
    )
    waits = Workflow("w")
    waits.chain(
        waits.add("files.source", id="in", config={"path": str(tmp_path / "no.jsonl"), "mode": "tail"}),
        waits.add("files.sink", id="out", config={"path": str(tmp_path)}),
    )
    async with runtime() as rt:
        good, bad, late = [await rt.health_check(workflow=each) for each in (wf, missing, waits)]
    assert good.ok
    assert of(good, "f/in").detail == "1 file can be read"
    assert files_in(tmp_path) == ["in.jsonl"]
    assert "does not exist" in of(bad, "g/in").detail
    assert "create_folder: true" in of(bad, "g/out").detail
    assert (of(late, "w/in").state, of(late, "w/out").state) == ("degraded", "failing")


async def test_a_closed_runtime_is_not_asked() -> None:
    rt = runtime()
    await rt.aclose()
    with pytest.raises(RuntimeClosedError):
        await rt.health_check()
