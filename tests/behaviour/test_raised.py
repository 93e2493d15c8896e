"""Whatever a node raises fails its row, in every kind of stage: never a hang, never a row lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from reactivex import Observable
from reactivex import operators as ops

from flowcore import Batch, NodeContext, Record, Sink, Stream, Workflow, node, operator
from flowcore.errors import CancelledRowError, ContractError, NodeFailedError, RunError, SourceError
from tests.behaviour.harness import Nothing, Script, kept, runtime, same, virtual


class StrangeError(BaseException):
    """No Exception."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": lambda: asyncio.CancelledError("mine"),
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration("mine"),
    "StrangeError": lambda: StrangeError("strange"),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("two", [ValueError("one"), StrangeError("two")]),
}


def raising(make: Callable[[], BaseException]) -> dict[str, Any]:  # noqa: C901 - one small node per kind
    """A node of each kind that raises for the text `bad`."""

    def judge(text: str) -> str:
        if text == "bad":
            raise make()
        return text

    @node("raised.plain")
    def plain(text: str) -> str:
        return judge(text)

    @node("raised.filter", kind="filter")
    def passes(text: str) -> bool:
        return bool(judge(text))

    @node("raised.coroutine")
    async def coroutine(text: str) -> str:
        await asyncio.sleep(0.1)
        return judge(text)

    @node("raised.thread", offload="thread")
    def thread(text: str) -> str:
        return judge(text)

    @node("raised.generator")
    def generator(text: str) -> Iterator[str]:
        yield judge(text)

    @node("raised.async_generator")
    async def async_generator(text: str) -> AsyncIterator[str]:
        await asyncio.sleep(0.1)
        yield judge(text)

    @node("raised.batched", batch=Batch(max_items=1))
    async def batched(texts: Sequence[str]) -> Sequence[str]:
        return [judge(text) for text in texts]

    @node("raised.group", kind="batch", batch=Batch(max_items=1))
    def group(texts: Sequence[str]) -> str:
        return judge(texts[0])

    found = [plain, passes, coroutine, thread, generator, async_generator, batched, group]
    return {each.__name__: each for each in found}


KINDS = list(raising(StrangeError))


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_what_a_node_raises_fails_its_row_and_no_other(kind: str, raised: str) -> None:
    wf = Workflow("raised", settings={"on_error": "continue"})
    thing = raising(RAISED[raised])[kind]
    port = thing.__flow_node__.inputs[0].name
    wf.chain(wf.add(thing, id="n"), wf.add(same, id="after"))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, ["ok", "bad", "ok"])]
        result = await rt.execute(wf, {port: "bad"})
    assert [out.ok for out in outcomes] == [True, False, True]
    assert [bool(out.value) for out in outcomes] == [True, False, True]
    assert result.state.name == "partial"
    assert result.outcomes["n"].state == "failed"
    assert (result.outcomes["after"].state, result.outcomes["after"].cause) == ("skipped", "n")
    for error in (outcomes[1].error, result.errors["n"][0]):
        assert isinstance(error, Exception)
        assert raised in str(error) or type(error).__name__ == raised


@virtual
async def test_a_generator_that_raises_keeps_the_children_it_gave() -> None:
    @node("raised.late")
    def late(text: str) -> Iterator[str]:
        yield text
        raise SystemExit(text)

    wf = Workflow("late", settings={"on_error": "continue"})
    wf.chain(wf.add(late, id="n"), wf.add(same, id="after"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"text": "a"})
    assert result.outputs["after"] == {"out": ["a"]}
    assert isinstance(result.errors["n"][0], NodeFailedError)
    assert isinstance(result.errors["n"][0].__cause__, SystemExit)


class Undecided:
    """Neither true nor false, as an array of several numbers."""

    def __bool__(self) -> bool:
        raise ValueError("which of them?")


@node("raised.undecided", kind="filter")
def undecided(value: int) -> Any:
    return Undecided() if value == 2 else value != 3


@node("raised.undecided_later", kind="filter")
async def undecided_later(value: int) -> Any:
    return undecided(value)


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("thing", [undecided, undecided_later])
@virtual
async def test_a_filter_whose_verdict_has_no_truth_fails_the_row_alone(thing: Any, branches: int) -> None:
    wf = Workflow("undecided", settings={"on_error": "continue"})
    judge = wf.add(thing, id="n")
    for index in range(branches):
        wf.connect(judge, wf.add(same, id=f"after{index}"), when="value > 0")
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2, 3, 4])]
        result = await rt.execute(wf, {"value": 2})
    assert [(out.ok, out.dropped) for out in outcomes] == [
        (True, False),
        (False, False),
        (True, True),
        (True, False),
    ]
    assert str(outcomes[1].error) == "which of them?"
    assert result.outcomes["n"].state == "failed"
    assert result.outcomes["after0"].cause == "n"


@virtual
async def test_a_keyboard_interrupt_is_no_rows_failure() -> None:
    @node("raised.interrupt")
    def interrupt(text: str) -> str:
        raise KeyboardInterrupt(text)

    wf = Workflow("interrupt")
    wf.add(interrupt)
    async with runtime() as rt:
        with pytest.raises(KeyboardInterrupt):
            await rt.execute(wf, {"text": "a"})


@virtual
async def test_a_coroutine_that_raises_cancelled_error_by_itself_is_told_apart_from_a_cancelled_one() -> None:
    @node("raised.inner")
    async def inner(text: str) -> str:
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task
        return text

    wf = Workflow("inner")
    wf.add(inner)
    async with runtime() as rt:
        result = await rt.execute(wf, {"text": "a"})
    assert result.state.name == "failed"
    assert isinstance(result.errors["inner"][0], CancelledRowError)
    assert isinstance(result.errors["inner"][0].__cause__, asyncio.CancelledError)


NO_EXCEPTIONS = ["SystemExit", "CancelledError", "GeneratorExit", "StrangeError", "BaseExceptionGroup"]


@pytest.mark.parametrize("raised", NO_EXCEPTIONS)
@virtual
async def test_whatever_a_sink_raises_fails_the_rows_it_was_given(raised: str) -> None:
    def write(batch: Any) -> None:
        if 2 in batch.values:
            raise RAISED[raised]()  # noqa: RSE102 - it makes the exception

    sink = kept(write)
    wf = Workflow("sink", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(sink, id="k"))
    source = Script([[1], _later, [2], _later, [3]])
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    if raised == "GeneratorExit":  # asyncio itself takes a task apart with it: told as a fault of the sink
        assert result.state.name == "failed"
        return
    assert result.state.name == "partial"
    assert sink.rows == [1, 3]
    assert isinstance(result.errors["k"][0], Exception)
    assert raised in str(result.errors["k"][0])


async def _later() -> None:
    await asyncio.sleep(1)


@pytest.mark.parametrize("where", ["assign", "open", "read", "commit"])
@pytest.mark.parametrize("raised", NO_EXCEPTIONS)
@virtual
async def test_whatever_a_source_raises_fails_the_run_with_a_source_error(where: str, raised: str) -> None:
    class Broken(Script, type="raised.source"):
        async def assignments(self, ctx: Any) -> AsyncIterator[Any]:
            if where == "assign":
                raise RAISED[raised]()  # noqa: RSE102 - it makes the exception
            async for change in super().assignments(ctx):
                yield change

        async def open(self, partition: str, resume: Any, ctx: Any) -> Any:
            if where == "open":
                raise RAISED[raised]()  # noqa: RSE102 - it makes the exception
            reader: Any = await super().open(partition, resume, ctx)

            async def broken(*_: Any) -> Any:
                raise RAISED[raised]()  # noqa: RSE102 - it makes the exception

            if where in ("read", "commit"):
                setattr(reader, where, broken)
            return reader

    source = Broken([[1]])
    wf = Workflow("source")
    wf.chain(wf.add(Script, id="s"), wf.add(kept(), id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert isinstance(result.cause, SourceError)
    assert raised in str(result.cause)
    assert result.errors["s"] == [result.cause]
    assert source.shut_down == 1


@pytest.mark.parametrize(
    "answer", [None, [], 5, {7: ValueError()}, {-1: ValueError()}, {"0": ValueError()}, {0: "x"}]
)
@virtual
async def test_a_sink_that_answers_with_something_else_than_its_failed_rows_has_not_written_them(
    answer: Any,
) -> None:
    class Answers(Sink[Nothing, Any], type="raised.answers"):
        async def write(self, batch: Any) -> Any:
            return answer

    wf = Workflow("answers", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(Answers, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[1, 2]])})).wait()
    assert result.counts["k"].failed == 2
    assert isinstance(result.errors["k"][0], ContractError)
    assert "return a mapping of the rows that failed" in str(result.errors["k"][0])


@operator("raised.nothing", settles="explicit")
def gives_nothing() -> Any:
    return None


@operator("raised.number", settles="explicit")
def gives_a_number() -> Any:
    def transform(source: Any) -> Any:
        del source
        return 5

    return transform


@operator("raised.unmade", settles="explicit")
def cannot_be_made() -> Any:
    raise SystemExit(3)


@operator("raised.unsubscribed", settles="explicit")
def cannot_be_subscribed() -> Any:
    def transform(source: Any) -> Any:
        raise ValueError("no thanks")

    return transform


UNUSABLE = {
    gives_nothing: "gave None",
    gives_a_number: "made 5",
    cannot_be_made: "3",
    cannot_be_subscribed: "no thanks",
}


@pytest.mark.parametrize("thing", UNUSABLE)
@virtual
async def test_an_operator_that_cannot_be_used_is_named(thing: Any) -> None:
    wf = Workflow("operator")
    wf.chain(wf.add(Script, id="s"), wf.add(thing, id="o"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[1]])})).wait()
        with pytest.raises(RunError, match=f"operator 'o'.*{UNUSABLE[thing]}"):
            await rt.execute(wf, {"s": 1})
    assert result.state.name == "failed"
    assert UNUSABLE[thing] in str(result.cause)


@pytest.mark.parametrize("raised", NO_EXCEPTIONS)
@virtual
async def test_whatever_an_operator_raises_fails_the_run_and_says_nothing_else_of_its_rows(
    raised: str,
) -> None:
    @operator("raised.operator", settles="explicit")
    def breaking() -> Any:
        def judge(record: Record[Any]) -> Record[Any]:
            if record.value == 2:
                raise RAISED[raised]()  # noqa: RSE102 - it makes the exception
            return record

        def transform(source: Observable[Record[Any]]) -> Observable[Record[Any]]:
            return source.pipe(ops.map(judge))

        return transform

    wf = Workflow("operator")
    wf.chain(wf.add(Script, id="s"), wf.add(breaking, id="o"), wf.add(kept(), id="k"))
    async with runtime() as rt:
        ran = await (await rt.start(wf, sources={"s": Script([[1, 2, 3]])})).wait()
        asked = await rt.execute(wf, {"s": 2})
    for result in (ran, asked):
        assert result.state.name == "failed"
        assert f"operator 'o' failed: {raised}" in str(result.cause)
        assert result.errors == {"o": [result.cause]}
    assert asked.outcomes["o"].state == "failed"


@pytest.mark.parametrize("raised", ["SystemExit", "CancelledError", "StrangeError", "BaseExceptionGroup"])
@virtual
async def test_whatever_the_producer_of_a_stream_raises_fails_who_reads_it(raised: str) -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(1)
        raise RAISED[raised]()  # noqa: RSE102 - it makes the exception

    @node("raised.produce")
    async def produce(value: int, ctx: NodeContext) -> Stream[str]:
        return ctx.stream(items())

    @node("raised.consume")
    async def consume(text: Stream[str]) -> str:
        return "".join([item async for item in text])

    wf = Workflow("stream", settings={"on_error": "continue"})
    wf.chain(wf.add(produce, id="p"), wf.add(consume, id="c"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"value": 1})
    assert result.state.name == "partial"
    assert isinstance(result.errors["c"][0], Exception)
    assert raised in str(result.errors["c"][0])
