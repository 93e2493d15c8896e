"""What is kept on disk: the cache answers other processes, the journal the same record; damage is noticed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from flowcore import Batch, LlmCall, Workflow, node
from flowcore.context import BatchContext, NodeContext
from flowcore.llm.answers import Generation
from flowcore.llm.policy import CachePolicy
from flowcore.llm.requests import EmbedRequest
from flowcore.store_errors import StoreDamagedError
from flowruntime.models.cache_file import FileCache
from flowruntime.models.journal import KEPT_S, CallJournal, CallName
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.recorder import recorded
from flowruntime.testing.scripted import CRASH, delay, scripted
from tests.behaviour.harness import kept, runtime, virtual
from tests.flowruntime.models.counting import Counting, ask, at

FILE = CachePolicy(store="sqlite", ttl=timedelta(hours=1))


def at_home(folder: Path, provider: Counting) -> FlowRuntime:
    return runtime(llm_providers={"counting": provider}, state_dir=str(folder))


# --- the cache file -----------------------------------------------------------------------------------


@virtual
async def test_another_runtime_of_the_project_answers_from_the_file(tmp_path: Path) -> None:
    provider = Counting()
    for _ in range(3):
        async with at_home(tmp_path, provider) as rt:
            answer = await rt.models.generate(ask(temperature=0), at(cache=FILE))
            assert answer.text == "re: hello"
            vectors = await rt.models.embed(EmbedRequest(model="m", texts=("a", "b")), at(cache=FILE))
            assert all(isinstance(each, bytes) for each in vectors)
    assert provider.calls == 2


@virtual
async def test_a_damaged_row_is_a_miss_and_is_asked_anew(tmp_path: Path) -> None:
    provider = Counting()
    async with at_home(tmp_path, provider) as rt:
        await rt.models.generate(ask(temperature=0), at(cache=FILE))
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as connection:
        connection.execute("UPDATE answers SET body = zeroblob(length(body))")
        connection.commit()
    async with at_home(tmp_path, provider) as rt:
        await rt.models.generate(ask(temperature=0), at(cache=FILE))
        assert provider.calls == 2
        assert rt.models.statistics()["cache_file"]["damaged"] == 1


@virtual
async def test_a_file_that_cannot_be_used_costs_its_answers_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_text("this is no database at all, and long enough to be looked at")
    provider = Counting()
    async with at_home(tmp_path, provider) as rt:
        for _ in range(2):
            await rt.models.generate(ask(temperature=0), at(cache=FILE))
    assert provider.calls == 2


@virtual
async def test_the_oldest_answers_make_room_for_new_ones(tmp_path: Path) -> None:
    said: list[str] = []
    cache = FileCache(str(tmp_path), said.append, max_entries=300)
    for number in range(1_000):
        await cache.put(str(number), b"1234", float(number))
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM answers").fetchone()
    assert count <= 300 + 256
    assert await cache.get("999", 1_000.0, None) == b"1234"
    assert await cache.get("0", 1_000.0, None) is None
    assert await cache.get("999", 10_000.0, 60.0) is None, "too old"
    assert said == []
    await cache.aclose()


# --- the journal --------------------------------------------------------------------------------------

NAME = CallName("w|s|s/0|3", "|n|abc|0")


@virtual
async def test_the_journal_answers_the_same_call_of_the_same_record_for_the_same_request(
    tmp_path: Path,
) -> None:
    journal, answer = CallJournal(str(tmp_path)), Generation(text="kept")
    assert await journal.find(NAME, "hash", 0.0) is None
    await journal.keep(NAME, "hash", answer, 0.0)
    await journal.aclose()
    journal = CallJournal(str(tmp_path))
    assert await journal.find(NAME, "hash", 1.0) == answer
    assert await journal.find(NAME, "other", 1.0) is None, "what is asked has changed"
    assert await journal.find(CallName(NAME.record, "|n|abc|1"), "hash", 1.0) is None
    assert await journal.find(CallName("elsewhere", NAME.call), "hash", 1.0) is None
    assert await journal.find(CallName("elsewhere", NAME.call), "hash", 1.0, anywhere=True) == answer
    await journal.forget([NAME.record, "never heard of"])
    assert await journal.find(NAME, "hash", 1.0) is None
    assert journal.statistics() == {"hits": 2, "kept": 0, "records": 0}
    await journal.keep(NAME, "hash", answer, 1.0)
    await journal.aclose()
    journal = CallJournal(str(tmp_path))
    assert await journal.find(NAME, "hash", KEPT_S + 2.0) is None, "no commit ever reached it"
    await journal.aclose()


@virtual
async def test_a_damaged_entry_is_an_error_and_not_a_second_payment(tmp_path: Path) -> None:
    journal = CallJournal(str(tmp_path))
    await journal.find(NAME, "hash", 0.0)
    await journal.keep(NAME, "hash", Generation(text="kept"), 0.0)
    with closing(sqlite3.connect(tmp_path / "calls.sqlite")) as connection:
        connection.execute("UPDATE calls SET sum = sum + 1")
        connection.commit()
    with pytest.raises(StoreDamagedError, match="is damaged: its sum differs"):
        await journal.find(NAME, "hash", 0.0)
    await journal.aclose()


def twice(target: object) -> object:
    """A node with two calls, the second of them a stream."""

    @node("kept.twice", concurrency=1)
    async def twice(value: str, ctx: NodeContext) -> str:
        first = await ctx.models.generate(ask(f"{value} first"), target)  # pyright: ignore[reportArgumentType] - a Target
        pieces = [each.text async for each in ctx.models.stream(ask(f"{value} second"), target)]  # pyright: ignore[reportArgumentType] - likewise
        return first.text + "|" + "".join(pieces)

    return twice


@virtual
async def test_a_record_that_comes_again_is_not_paid_again(tmp_path: Path) -> None:
    """The run dies before the second call of `a` is answered: the first one is kept."""
    provider, sink = Counting(then=0.1), kept()
    source = scripted("a", delay(0.15), CRASH, "b", max_rows=1)
    wf = Workflow("kept", settings={"drain_timeout": "10ms", "commit_interval": "1h", "max_redelivery": 100})
    wf.chain(wf.add("flow.scripted", id="s"), wf.add(twice(at(journal=True)), id="n"), wf.add(sink, id="k"))
    async with runtime(
        nodes=[type(source)], llm_providers={"counting": provider}, state_dir=str(tmp_path)
    ) as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
        assert not result.ok
    assert provider.calls == 2
    async with runtime(
        nodes=[type(source)], llm_providers={"counting": provider}, state_dir=str(tmp_path)
    ) as rt:
        with recorded(rt.events) as seen:
            result = await (await rt.start(wf, sources={"s": source})).wait()
        assert result.ok
        assert [each.journaled for each in seen.of(LlmCall)] == [True, False, False, False]
        assert rt.models.statistics()["journal"]["records"] == 0
    assert provider.calls == 2 + 3, "only the call that was under way when the run died is made again"
    assert sink.rows == [f"re: {each} first|re: {each} second" for each in "ab"]


@virtual
async def test_batches_made_up_differently_find_the_vectors_of_their_texts(tmp_path: Path) -> None:
    provider, sink = Counting(then=0.1), kept()

    @node("kept.embed", batch=Batch(max_items=4), concurrency=1)
    async def embed(text: str, ctx: BatchContext) -> list[object]:
        texts: object = text
        request = EmbedRequest(model="m", texts=tuple(texts))
        return list(await ctx.models.embed(request, at(journal=True)))

    held = [True]

    @node("kept.hold")
    async def hold(vector: bytes) -> bytes:
        """While it holds them, no record is committed."""
        await asyncio.sleep(10.0 if held[0] else 0.0)
        return vector

    source = scripted("a", "bb", "ccc", delay(1.0), CRASH, "dddd")
    wf = Workflow("kept", settings={"drain_timeout": "10ms", "commit_interval": "1h", "max_redelivery": 100})
    wf.chain(
        wf.add("flow.scripted", id="s"), wf.add(embed, id="n"), wf.add(hold, id="h"), wf.add(sink, id="k")
    )
    for _ in range(2):
        async with runtime(
            nodes=[type(source)], llm_providers={"counting": provider}, state_dir=str(tmp_path)
        ) as rt:
            await (await rt.start(wf, sources={"s": source})).wait()
        held[0] = False
    texts = [text for call in provider.texts for text in call]
    assert sorted(texts) == ["a", "bb", "ccc", "dddd"]


@virtual
async def test_a_runtime_without_a_folder_says_once_that_it_keeps_nothing() -> None:
    provider = Counting()
    async with runtime(llm_providers={"counting": provider}) as rt:
        for _ in range(2):
            await rt.models.generate(ask(temperature=0), at(cache=FILE, journal=True))
        assert provider.calls == 2
