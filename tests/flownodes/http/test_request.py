"""http.request: from a row to a request, from an answer to ports or a typed error."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET

from flowcore.context import HttpRequest, HttpResponse, HttpStream
from flowcore.errors import (
    CoercionError,
    ConfigError,
    HttpDecodingError,
    HttpStatusError,
    HttpUnavailableError,
    ValidationFailedError,
    WrongKindError,
)
from flowcore.node import definition_of
from flowcore.values import Secret, ValueFormError
from flownodes.http.request import Request, RequestConfig, RequestIn, RequestOut
from flowruntime.factories import DefinitionFactory
from flowruntime.testing.contexts import StandaloneNodeContext

URL = "http://a.example/path?key=secret"


class Recorded:
    """Answers every request alike and remembers them."""

    def __init__(self, status: int = 200, body: bytes = b"hello", **headers: str) -> None:
        self.requests: list[HttpRequest] = []
        self._status, self._body = status, body
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        return HttpResponse(
            status=self._status, headers=self._headers, body=self._body, url=request.url, elapsed_s=0.5
        )

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        raise AssertionError(f"nothing here streams a response: {request.url}")


async def call(client: Recorded, inputs: RequestIn | None = None, **config: Any) -> RequestOut:
    node = Request(RequestConfig(**config))
    return await node.execute(inputs or RequestIn(url=URL), StandaloneNodeContext(http=client))


async def test_the_answer_is_there_whole_and_in_parts() -> None:
    out = await call(Recorded(201, content_type="text/plain"))
    assert (out.body, out.status, out.headers) == ("hello", 201, {"content-type": "text/plain"})
    assert out.out == {
        "status": 201, "headers": {"content-type": "text/plain"}, "body": "hello", "url": URL,
        "elapsed_s": 0.5,
    }  # fmt: skip


async def test_the_configuration_becomes_the_request() -> None:
    client = Recorded()
    await call(
        client,
        RequestIn(),
        url=URL,
        method="PUT",
        headers={"X-Key": Secret("k", name="KEY"), "Accept": "text/plain"},
        bearer=Secret("t"),
        query={"a": 1, "b": True, "c": "x"},
        json={"big": 2**70},
        timeout=timedelta(seconds=3),
        max_body_bytes=99,
        follow_redirects=True,
    )
    assert client.requests == [
        HttpRequest(
            url=URL,
            method="PUT",
            headers={
                "X-Key": "k", "Accept": "text/plain", "Content-Type": "application/json",
                "Authorization": "Bearer t",
            },
            query={"a": "1", "b": "true", "c": "x"},
            body=b'{"big":1180591620717411303424}',
            timeout=timedelta(seconds=3),
            max_body_bytes=99,
            follow_redirects=True,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ("text", b"text", "text/plain; charset=utf-8"),
        (b"\x00", b"\x00", "application/octet-stream"),
        ({"a": [1]}, b'{"a":[1]}', "application/json"),
        (None, b"", None),
    ],
)
async def test_the_port_wins_over_the_configuration(
    body: object, sent: bytes, content_type: str | None
) -> None:
    client = Recorded()
    await call(client, RequestIn(url=URL, body=body), method="POST", url="http://other", json={"not": "this"})
    request = client.requests[0]
    assert (request.url, request.body, request.headers.get("Content-Type")) == (URL, sent, content_type)


async def test_a_row_that_makes_no_request_sends_nothing() -> None:
    client = Recorded()
    for inputs, error in (
        (RequestIn(), WrongKindError),
        (RequestIn(url=URL, body={"a": math.nan}), ValueFormError),
        (RequestIn(url=URL, body="\ud800"), CoercionError),
    ):
        with pytest.raises(error):
            await call(client, inputs)
    assert client.requests == []


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"retry_after": "2"}, 2.0),
        (503, {"retry_after": "Wed, 01 Jan 2020 00:00:30 GMT"}, 30.0),
        (503, {"retry_after": "Tue, 31 Dec 2019 00:00:00 GMT"}, 0.0),
        (429, {"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        (500, {"retry_after": "soon"}, None),
        (502, {}, None),
    ],
)
async def test_a_busy_server_can_be_asked_again(
    status: int, headers: dict[str, str], wait_s: float | None
) -> None:
    with pytest.raises(HttpUnavailableError) as caught:
        await call(Recorded(status, b"later", **headers))
    assert caught.value.retriable
    facts = caught.value.facts()
    assert (facts["status"], facts["retry_after_s"], facts["body_start"]) == (status, wait_s, "'later'")
    assert "secret" not in str(facts)


@pytest.mark.parametrize("status", [301, 401, 404, 422])
async def test_another_status_fails_for_good(status: int) -> None:
    with pytest.raises(HttpStatusError, match=str(status)) as caught:
        await call(Recorded(status))
    assert not caught.value.retriable


async def test_expected_statuses_are_no_failure() -> None:
    for status, expected in ((404, (200, 404)), (404, ("2xx", "404")), (418, ("4xx",)), (500, ("5xx",))):
        assert (await call(Recorded(status), expected=expected)).status == status
    with pytest.raises(HttpStatusError):
        await call(Recorded(200), expected=(204,))


async def test_the_body_is_what_was_asked_for() -> None:
    assert (await call(Recorded(body=b'{"a": 1}'), decode="json")).body == {"a": 1}
    assert (await call(Recorded(body=b"\xff"), decode="bytes")).body == b"\xff"
    latin = Recorded(body=b"\xe4", content_type="text/html; charset=ISO-8859-1")
    assert (await call(latin)).body == "ä"


@pytest.mark.parametrize(
    ("body", "decode", "content_type"),
    [
        (b"\xff", "text", ""),
        (b"<html>", "json", ""),
        (b"", "json", ""),
        (b"a", "text", "text/plain; charset=hex"),
    ],
)
async def test_a_body_that_is_something_else_is_an_error(body: bytes, decode: str, content_type: str) -> None:
    with pytest.raises(HttpDecodingError, match="Set decode to 'bytes'"):
        await call(Recorded(body=body, content_type=content_type), decode=decode)


@pytest.mark.parametrize(
    "config",
    [
        {"json": 1, "body": "x"},
        {"bearer": {"$secret": "T"}, "headers": {"authorization": "x"}},
        {"timeout": "0s"},
        {"expected": ["6xx"]},
        {"expected": []},
        {"expected": [99]},
        {"method": "BREW"},
        {"bearer": "written in the file"},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    definition = definition_of(Request)
    assert definition is not None
    with pytest.raises((ConfigError, ValidationFailedError)) as caught:
        DefinitionFactory(definition).create(config)
    assert "written in the file" not in str(caught.value)


def test_a_configuration_is_read_from_plain_data() -> None:
    definition = definition_of(Request)
    assert definition is not None
    made = DefinitionFactory(definition).create({"url": URL, "expected": [200, "4xx"], "timeout": "5s"})
    assert (made.config.expected, made.config.timeout, made.config.json) == (
        (200, "4xx"),
        timedelta(seconds=5),
        UNSET,
    )
