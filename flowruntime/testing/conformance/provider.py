"""What every provider of models that is reached over HTTP must do, as tests a provider's author inherits.

Owns: `ProviderConformance`.
Does not own: the subject and its server (provider_subject); what is special about one wire format: its
author tests that.

Always holds: the tests need no plugin and no network beyond loopback.

    class TestMine(ProviderConformance):
        @pytest.fixture
        def subject(self) -> ProviderSubject:
            return ProviderSubject(factory=MineProvider, serving=my_fake_server, key="sk-test")
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import msgspec

from flowcore.context import HttpClient
from flowcore.errors import ConfigError, FlowError
from flowcore.health import HealthCheck
from flowcore.llm.answers import Assembly, Delta, Generation, Usage
from flowcore.llm.errors import (
    AnswerTooLargeError,
    AuthenticationError,
    BadAnswerError,
    BrokenStreamError,
    ModelNotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    RequestRefusedError,
    RequestTooLargeError,
)
from flowcore.llm.messages import ToolCall, system, user
from flowcore.llm.provider import Provider
from flowcore.llm.requests import EmbedRequest, GenerateRequest, Timeouts
from flowcore.values import Secret
from flowcore.vectors import floats_of
from flowruntime.http.client import GuardedHttpClient
from flowruntime.http.guard import HttpSettings
from flowruntime.testing.conformance.provider_subject import (
    ProviderDouble,
    ProviderSubject,
    StandaloneProviderContext,
)
from flowruntime.testing.contexts import StandaloneSourceContext

T = TypeVar("T")

_TIMEOUT_S: Final = 30.0
_SOON: Final = timedelta(milliseconds=100)
_IN_9_S: Final = "Sun, 01 Mar 2026 12:00:09 GMT"
_LONGEST_MESSAGE: Final = 1_000
_ALLOWED_BYTES: Final = 100_000
_MODEL: Final = "model-1"
_REQUEST: Final = GenerateRequest(model=_MODEL, messages=(system("Be brief."), user("Hello?")))
_TEXTS: Final = EmbedRequest(model=_MODEL, texts=("one", "two", "three"))
_VECTORS: Final = ((1.0, 0.0), (0.0, 1.0), (0.5, -2.0))
_STATUSES: Final[dict[int, type[ProviderError]]] = {
    400: RequestRefusedError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    413: RequestTooLargeError,
    429: RateLimitedError,
    500: ProviderUnavailableError,
    503: ProviderUnavailableError,
    529: ProviderUnavailableError,
}
_GARBAGE: Final = (
    b"", b"   ", b"<html><body>It works!</body></html>", b"null", b"17", b"{}", b"[]", b'{"cho',
    b'{"choices": [], "content": [], "message": {}, "output": 3}', b"\xff\xfe\x00", b"[" * 10_000,
    b'{"choices": [{"message": {"content": 7}}], "content": 7, "message": 7, "output": 7}',
)  # fmt: skip


class _Bench:
    """A double, and the provider opened at it."""

    def __init__(self, subject: ProviderSubject, double: ProviderDouble, http: HttpClient) -> None:
        self.subject = subject
        self.double = double
        self.context = StandaloneProviderContext(http)
        self.provider = self.open()

    def open(self, **changes: Any) -> Provider:
        return self.subject.factory(self.double.endpoint(**changes), self.context)

    async def pieces(self, provider: Provider | None = None) -> list[Delta]:
        async with aclosing((provider or self.provider).stream(_REQUEST, self.context)) as deltas:
            return [delta async for delta in deltas]

    async def generate(self, provider: Provider | None = None) -> Generation:
        return await (provider or self.provider).generate(_REQUEST, self.context)

    def ways(self, provider: Provider | None = None) -> dict[str, Callable[[], Awaitable[object]]]:
        """Every way to ask it."""
        asked = provider or self.provider
        ways: dict[str, Callable[[], Awaitable[object]]] = {}
        if self.subject.generates:
            ways |= {"generate": lambda: self.generate(asked), "stream": lambda: self.pieces(asked)}
        if self.subject.embeds:
            ways["embed"] = lambda: asked.embed(_TEXTS, self.context)
        return ways

    async def until_closed(self) -> None:
        while self.double.open:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)


@asynccontextmanager
async def _opened(subject: ProviderSubject) -> AsyncGenerator[_Bench, None]:
    async with (
        asyncio.timeout(_TIMEOUT_S),
        GuardedHttpClient(HttpSettings(allow_private=True)) as http,
        subject.serving() as double,
    ):
        yield _Bench(subject, double, http)


def _run(subject: ProviderSubject, scenario: Callable[[_Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with _opened(subject) as bench:
            await scenario(bench)

    asyncio.run(whole())


async def _error(way: Callable[[], Awaitable[object]]) -> FlowError:
    try:
        answer = await way()
    except FlowError as error:
        return error
    raise AssertionError(f"no error, but {answer!r}")


def _refusal(bench: _Bench, changes: Mapping[str, Any]) -> str:
    try:
        bench.open(**changes)
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"opened with {changes}")


def _answer(text: str = "Grüße, 世界! How are you?", **fields: Any) -> Generation:
    usage = Usage(input_tokens=11, output_tokens=5)
    given: dict[str, Any] = {"text": text, "model": "model-1-2026", "id": "answer-1", "usage": usage}
    return Generation(**(given | fields))


def _assembled(pieces: Sequence[Delta]) -> Generation:
    whole = Assembly()
    for piece in pieces:
        whole.add(piece)
    return whole.whole()


def _without(answer: Generation, *, ids: bool) -> dict[str, object]:
    found = msgspec.structs.asdict(answer)
    for name in ("limits", *(() if ids else ("id",))):
        found.pop(name)
    found["tool_calls"] = [
        (call.id if ids else "", call.name, json.loads(call.arguments)) for call in answer.tool_calls
    ]
    return found


class ProviderConformance:
    """Inherit, and give a fixture `subject`."""

    def test_it_is_a_provider_that_can_say_how_it_is(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            provider = bench.provider
            assert isinstance(provider, Provider)
            assert provider.name
            assert provider.max_embed_texts >= 1
            assert provider.count_tokens(GenerateRequest(model=_MODEL, messages=())) >= 1
            assert provider.count_tokens(_REQUEST) >= provider.count_tokens(
                EmbedRequest(model=_MODEL, texts=("",))
            )
            assert isinstance(provider, HealthCheck)
            ctx = cast("Any", StandaloneSourceContext(http=bench.context.http))
            assert (await provider.health(ctx)).state == "ok"
            bench.double.raw(401, f"no {subject.key}".encode())
            health = await provider.health(ctx)
            assert health.state == "failing"
            assert subject.key not in health.detail

        _run(subject, scenario)

    def test_an_answer_has_what_was_said_and_counted(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            for answer in (_answer(), _answer(finish="length"), _answer("x" * 100_000)):
                bench.double.answer(answer)
                found = await bench.generate()
                ids = subject.names_answers
                assert _without(found, ids=ids) == _without(answer, ids=ids)

        _run(subject, scenario)

    def test_calls_of_tools_come_with_their_arguments(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            calls = (
                ToolCall(id="call_0", name="look_up", arguments='{"q": "ä", "n": [1, 2]}'),
                ToolCall(id="call_1", name="stop_all", arguments="{}"),
            )
            answer = _answer("", tool_calls=calls, finish="tool_calls")
            bench.double.answer(answer)
            ids = subject.names_answers
            assert _without(await bench.generate(), ids=ids) == _without(answer, ids=ids)
            assert _without(_assembled(await bench.pieces()), ids=ids) == _without(answer, ids=ids)

        _run(subject, scenario)

    def test_an_answer_in_pieces_is_the_same_answer(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            for answer in (_answer(), _answer(finish="length"), _answer("x" * 100_000)):
                bench.double.answer(answer)
                pieces = await bench.pieces()
                assert _assembled(pieces) == await bench.generate()
                assert [piece.finish for piece in pieces if piece.finish] == [answer.finish]
                assert pieces[-1].finish == answer.finish
                assert sum(bool(piece.text) for piece in pieces) > 1

        _run(subject, scenario)

    def test_each_text_has_its_vector_in_order(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            bench.double.answer(Generation(), _VECTORS)
            if not subject.embeds:
                error = await _error(lambda: bench.provider.embed(_TEXTS, bench.context))
                assert isinstance(error, RequestRefusedError)
                assert error.facts()["code"] == "unsupported"
                return
            found = await bench.provider.embed(_TEXTS, bench.context)
            assert [tuple(floats_of(vector)) for vector in found.vectors] == list(_VECTORS)
            for vectors in (_VECTORS[:2], (*_VECTORS, (1.0, 1.0)), ((1.0,), (1.0, 2.0), (1.0,))):
                bench.double.answer(Generation(), vectors)
                error = await _error(lambda: bench.provider.embed(_TEXTS, bench.context))
                assert isinstance(error, BadAnswerError)

        _run(subject, scenario)

    def test_each_status_is_its_error(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            for status, kind in _STATUSES.items():
                bench.double.raw(status, b"something went wrong", {"x-request-id": "req-7"})
                for name, way in bench.ways().items():
                    error = await _error(way)
                    assert type(error) is kind, (status, name, error)
                    facts = error.facts()
                    assert (facts["model"], facts["status"]) == (_MODEL, status)
                    assert facts["request_id"] == "req-7"
                    assert facts["provider"] == bench.provider.name

        _run(subject, scenario)

    def test_when_to_come_back_is_told(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            told: list[tuple[dict[str, str], float | None]] = [
                ({"retry-after": "7"}, 7.0),
                ({"retry-after": _IN_9_S}, 9.0),
                ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
                ({}, None),
            ]
            for headers, wait_s in told:
                for status in (429, 503):
                    bench.double.raw(status, b"", headers)
                    for way in bench.ways().values():
                        assert (await _error(way)).facts()["retry_after_s"] == wait_s

        _run(subject, scenario)

    def test_what_is_no_answer_is_an_error_that_shows_its_beginning(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            for body in _GARBAGE:
                bench.double.raw(200, body)
                for name, way in bench.ways().items():
                    if name == "embed" and body == b"[]":
                        continue  # a list of no vectors; see the test of vectors
                    error = await _error(way)
                    assert isinstance(error, BadAnswerError | BrokenStreamError), (name, body, error)
                    assert len(str(error)) < _LONGEST_MESSAGE
            bench.double.raw(200, b'{"error": {"message": "no", "type": "x", "code": 429}}')
            for way in bench.ways().values():
                assert isinstance(await _error(way), ProviderError)

        _run(subject, scenario)

    def test_an_answer_larger_than_allowed_is_not_read(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            provider = bench.open(max_answer_bytes=_ALLOWED_BYTES)
            large = b'"' + b"x" * 50_000_000
            for headers, body in (({}, large), ({"content-encoding": "gzip"}, gzip.compress(large, 1))):
                bench.double.raw(200, body, headers)
                for way in bench.ways(provider).values():
                    error = await _error(way)
                    assert isinstance(error, AnswerTooLargeError)
                    assert error.facts()["max_bytes"] == _ALLOWED_BYTES

        _run(subject, scenario)

    def test_a_stream_that_never_ends_is_capped(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            bench.double.answer(_answer())
            bench.double.behave("endless")
            provider = bench.open(max_answer_bytes=200_000)
            assert isinstance(await _error(lambda: bench.pieces(provider)), AnswerTooLargeError)
            await bench.until_closed()

        _run(subject, scenario)

    def test_a_stream_that_ends_early_or_breaks_is_no_answer(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            for manner in ("cut", "torn"):
                bench.double.answer(_answer())
                bench.double.behave(manner)
                error = await _error(bench.pieces)
                assert isinstance(error, BrokenStreamError)
                assert error.retriable
                received = error.facts()["received"]
                assert isinstance(received, int)
                assert received > 0

        _run(subject, scenario)

    def test_silence_is_a_timeout_that_says_where(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            bench.double.answer(_answer())
            provider = bench.open(timeouts=Timeouts(between_tokens=_SOON))
            bench.double.behave("stall")
            error = await _error(lambda: bench.pieces(provider))
            assert isinstance(error, ProviderTimeoutError)
            assert error.facts()["phase"] == "between_tokens"
            provider = bench.open(timeouts=Timeouts(first_token=_SOON))
            bench.double.behave("hang")
            for way in bench.ways(provider).values():
                error = await _error(way)
                assert isinstance(error, ProviderTimeoutError)
                assert error.facts()["phase"] == "first_token"
            await bench.until_closed()

        _run(subject, scenario)

    def test_who_is_not_there_is_unavailable(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            provider = bench.open(base_url="http://127.0.0.1:9")
            for name, way in bench.ways(provider).items():
                if name != "embed":
                    assert isinstance(await _error(way), ProviderUnavailableError)

        _run(subject, scenario)

    def test_cancelling_and_closing_end_the_exchange(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            bench.double.answer(_answer())
            for manner in ("hang", "stall"):
                bench.double.behave(manner)
                task = asyncio.ensure_future(bench.pieces())
                while not bench.double.open:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled()
                await bench.until_closed()
            deltas = bench.provider.stream(_REQUEST, bench.context)
            await anext(deltas)
            await deltas.aclose()
            await bench.until_closed()

        _run(subject, scenario)

    def test_the_key_is_sent_and_never_shown(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            assert subject.key not in repr(bench.provider)
            echo = json.dumps({"error": {"message": f"bad key {subject.key}", "code": subject.key}})
            for status, body in ((401, echo), (500, subject.key), (200, f"<p>{subject.key}"), (200, echo)):
                bench.double.raw(status, body.encode())
                for way in bench.ways().values():
                    error = await _error(way)
                    for shown in (str(error), repr(error), str(error.facts())):
                        assert subject.key not in shown
            for seen in bench.double.seen:
                assert any(subject.key in value for value in seen.headers.values())
                assert subject.key not in seen.path
                assert subject.key.encode() not in seen.body

        _run(subject, scenario)

    def test_headers_of_the_endpoint_are_sent_and_win(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            headers = {"X-Own": Secret("own-secret-1"), "Content-Type": "application/x-own"}
            provider = bench.open(headers=headers)
            assert "own-secret-1" not in repr(provider)
            bench.double.raw(400, b"own-secret-1")
            error = await _error(lambda: bench.generate(provider))
            assert "own-secret-1" not in str(error)
            seen = bench.double.seen[-1].headers
            assert (seen["x-own"], seen["content-type"]) == ("own-secret-1", "application/x-own")

        _run(subject, scenario)

    def test_what_an_endpoint_lacks_is_told_when_it_is_opened(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            await asyncio.sleep(0)
            problems: list[tuple[dict[str, Any], str]] = [
                ({"options": {"no_such_option": 1}}, "no_such_option"),
                ({"base_url": "ftp://somewhere"}, "base_url"),
                ({"base_url": "http://user:pass@somewhere"}, "base_url"),
                ({"api_key": Secret("bad\nkey")}, "key"),
            ]
            if subject.variable is not None:
                problems.append(({"api_key": None}, subject.variable))
            for changes, word in problems:
                refusal = _refusal(bench, changes)
                assert word in refusal
                assert "bad\nkey" not in refusal
            if subject.variable is not None:
                context = StandaloneProviderContext(bench.context.http, {subject.variable: "from-there"})
                provider = subject.factory(bench.double.endpoint(api_key=None), context)
                bench.double.answer(_answer())
                await bench.generate(provider)
                assert any("from-there" in value for value in bench.double.seen[-1].headers.values())

        _run(subject, scenario)

    def test_text_that_is_no_unicode_is_refused_before_it_is_sent(self, subject: ProviderSubject) -> None:
        async def scenario(bench: _Bench) -> None:
            request = GenerateRequest(model=_MODEL, messages=(user("\ud800"),))
            error = await _error(lambda: bench.provider.generate(request, bench.context))
            assert isinstance(error, RequestRefusedError)
            assert not bench.double.seen

        _run(subject, scenario)
