"""http.request: calls a web service for each row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.coercion import coerce
from flowcore.context import HttpRequest, HttpResponse, NodeContext
from flowcore.errors import ConfigError, HttpDecodingError, HttpStatusError, HttpUnavailableError
from flowcore.findings import shown
from flowcore.node import Node, Outputs
from flowcore.retry_after import retry_after_s
from flowcore.values import Json, Secret
from flownodes.fields import wrong_kind

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
StatusPattern = Annotated[str, Meta(pattern=r"^[1-5](?:[0-9][0-9]|xx)$")]

_LATER: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_BODY_START: Final = 500


class RequestConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of http.request."""

    url: Annotated[str | None, Meta(description="where to; the input port `url` wins over it")] = None
    method: Method = "GET"
    headers: Annotated[
        dict[str, str | Secret], Meta(description="values may be secrets: {$secret: NAME}")
    ] = {}
    bearer: Annotated[Secret | None, Meta(description="sent as Authorization: Bearer ...")] = None
    query: Annotated[
        dict[str, str | int | float | bool], Meta(description="added to the query of the URL")
    ] = {}
    json: Annotated[Any, Meta(description="body, sent as JSON; the input port `body` wins over it")] = UNSET
    body: Annotated[
        str | None, Meta(description="body, sent as text; the input port `body` wins over it")
    ] = None
    expected: Annotated[
        tuple[Annotated[int, Meta(ge=100, le=599)] | StatusPattern, ...],
        Meta(min_length=1, description="statuses that are no failure: 200, 404, 2xx"),
    ] = ("2xx",)
    decode: Annotated[
        Literal["text", "json", "bytes"],
        Meta(description="what `body` is: text, the value of the JSON, bytes"),
    ] = "text"
    timeout: Annotated[timedelta, Meta(description="for the whole exchange")] = timedelta(seconds=30)
    max_body_bytes: Annotated[int, Meta(ge=1, description="largest decoded body")] = 16 * 1024 * 1024
    follow_redirects: bool = False

    def __post_init__(self) -> None:
        if self.json is not UNSET and self.body is not None:
            raise ConfigError("say json or body, not both")
        if self.bearer is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ConfigError("bearer and the header Authorization exclude each other; remove one")
        if self.timeout <= timedelta(0):
            raise ConfigError(f"timeout: must be longer than 0, not {self.timeout}")


class RequestIn(Struct, frozen=True):
    """Input ports; both may be left open."""

    url: str | None = None
    body: Any = UNSET


class RequestOut(Outputs):
    """Output ports."""

    out: dict[str, Any] | UnsetType = UNSET
    """The whole answer: status, headers (names in lower case), body, url, elapsed_s."""
    body: Any | UnsetType = UNSET
    status: int | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET


class Request(Node[RequestConfig, RequestIn, RequestOut], type="http.request", concurrency=64):
    """Sends one HTTP request for each row and gives the answer, whole and decoded.

    A body that is text or bytes is sent as it is, anything else as JSON. Addresses inside private networks
    are refused unless the operator allows them. The policy `retry` repeats a POST like any other request.

    Emits when      the answer is whole and its status is `expected`: on all ports.
    Drops           nothing.
    Fails when      the status is another one (429 and 5xx can be retried, `retry_after_s` says when), the
                    address is refused, it takes longer than `timeout`, the body is larger than
                    `max_body_bytes` or is not what `decode` says.
    Cost            one request a row; at most the policy `concurrency` at once (64 unless said).
    Holds           one body of at most `max_body_bytes` for each request in flight.
    """

    async def execute(self, inputs: RequestIn, ctx: NodeContext) -> RequestOut:
        response = await ctx.http.send(self._request(inputs))
        if not _is_expected(response.status, self.config.expected):
            raise _status_error(self.config.method, response, ctx.now())
        body = _decoded(response, self.config.decode, self.config.method)
        headers = dict(response.headers)
        answer = {
            "status": response.status,
            "headers": headers,
            "body": body,
            "url": response.url,
            "elapsed_s": response.elapsed_s,
        }
        return RequestOut(out=answer, body=body, status=response.status, headers=headers)

    def _request(self, inputs: RequestIn) -> HttpRequest:
        config = self.config
        url = inputs.url if inputs.url is not None else config.url
        if not isinstance(url, str):
            raise wrong_kind(
                url, "a URL as text", "http.request", "set url in its config or connect its port url"
            )
        content, content_type = self._content(inputs)
        headers = {name: _revealed(value) for name, value in config.headers.items()}
        if content_type is not None and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = content_type
        if config.bearer is not None:
            headers["Authorization"] = f"Bearer {config.bearer.reveal()}"
        return HttpRequest(
            url=url,
            method=config.method,
            headers=headers,
            query={name: _query_text(value) for name, value in config.query.items()},
            body=content,
            timeout=config.timeout,
            max_body_bytes=config.max_body_bytes,
            follow_redirects=config.follow_redirects,
        )

    def _content(self, inputs: RequestIn) -> tuple[bytes, str | None]:
        given: object = inputs.body
        if given is UNSET:
            if self.config.json is not UNSET:
                return Json.of(self.config.json).raw, "application/json"
            given = self.config.body
        if given is None:
            return b"", None
        if isinstance(given, bytes):
            return given, "application/octet-stream"
        if isinstance(given, str):
            encoded: bytes = coerce(given, "bytes", path=("body",))
            return encoded, "text/plain; charset=utf-8"
        return (given if isinstance(given, Json) else Json.of(given)).raw, "application/json"


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _query_text(value: str | float | bool) -> str:  # noqa: FBT001 - a value of the query, not a switch
    return value if isinstance(value, str) else json.dumps(value)


def _is_expected(status: int, expected: tuple[int | str, ...]) -> bool:
    family = f"{status // 100}xx"
    return any(word in (status, str(status), family) for word in expected)


def _status_error(method: str, response: HttpResponse, now: datetime) -> HttpStatusError:
    url = response.url.partition("?")[0]
    start = shown(response.body[:_BODY_START].decode("utf-8", "replace"))
    try:
        phrase = f" {HTTPStatus(response.status).phrase}"
    except ValueError:
        phrase = ""
    message = f"{method} {url} answered {response.status}{phrase}; the body starts with {start}"
    facts = {"method": method, "url": url, "status": response.status, "body_start": start}
    if response.status >= _SERVER_ERROR or response.status in _LATER:
        wait_s = retry_after_s(response.headers, now)
        when = "" if wait_s is None else f"; it asks to wait for {wait_s:g} s"
        return HttpUnavailableError(message + when, retry_after_s=wait_s, **facts)
    return HttpStatusError(f"{message}; add it to expected if it is no failure", **facts)


def _decoded(response: HttpResponse, decode: str, method: str) -> Any:
    if decode == "bytes":
        return response.body
    try:
        if decode == "json":
            return Json(response.body).parse()
        return response.body.decode(_charset(response.headers))
    except (ValueError, LookupError) as fault:
        start, url = shown(response.body[:60]), response.url.partition("?")[0]
        raise HttpDecodingError(
            f"{method} {url}: the body is not {decode}: {fault}; it starts with {start}. "
            "Set decode to 'bytes' to take it as it is",
            method=method,
            url=url,
            reason=str(fault),
        ) from fault


def _charset(headers: Mapping[str, str]) -> str:
    message = Message()
    message["content-type"] = headers.get("content-type", "")
    return message.get_content_charset() or "utf-8"
