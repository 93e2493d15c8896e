"""Which status and which word of a provider is which of our errors."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import (
    HttpBodyTooLargeError,
    HttpConnectionError,
    HttpDecodingError,
    HttpError,
    HttpRefusedError,
    HttpTimeoutError,
)
from flowcore.llm.errors import (
    AddressRefusedError,
    AnswerTooLargeError,
    AuthenticationError,
    BadAnswerError,
    BrokenStreamError,
    ContentRefusedError,
    ModelNotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRefusedError,
    RequestTooLargeError,
)
from flowcore.llm.statuses import Asked, ErrorWords, bad_answer, from_http, provider_error, read_error
from flowcore.values import Secret

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEY = "sk-live-0123456789"
ASKED = Asked(provider="openai", model="gpt", secrets=(Secret(KEY),))


def told(status: int | None, body: bytes = b"", **headers: str) -> ProviderError:
    said = read_error(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return provider_error(ASKED, status, body if said is None else said, named, NOW)


def test_how_long_to_wait_may_stand_in_the_details_and_the_header_wins() -> None:
    body = b'[{"error": {"status": "RESOURCE_EXHAUSTED", "details": [7, {"a": 1}, {"retryDelay": "34.5s"}]}}]'
    assert told(429, body).facts()["retry_after_s"] == 34.5
    assert told(429, body, retry_after="2").facts()["retry_after_s"] == 2.0
    for odd in (b'"nans"', b'"-1s"', b'"s"', b"3", b"null"):
        details = b'{"error": {"details": [{"retryDelay": ' + odd + b"}]}}"
        assert told(429, details).facts()["retry_after_s"] is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error": {"message": "m", "type": "invalid_request_error"}}', RequestRefusedError),
        (422, b'{"detail": [{"loc": ["body"], "msg": "missing"}]}', RequestRefusedError),
        (400, b'{"error": {"code": "context_length_exceeded"}}', RequestTooLargeError),
        (413, b"", RequestTooLargeError),
        (400, b'{"error": {"code": "content_filter", "innererror": {"code": "x"}}}', ContentRefusedError),
        (
            400,
            b'{"error": {"code": "bad", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}',
            ContentRefusedError,
        ),
        (401, b"", AuthenticationError),
        (403, b"<html>", AuthenticationError),
        (400, b'{"error": {"code": "invalid_api_key"}}', AuthenticationError),
        (402, b"", QuotaExhaustedError),
        (
            429,
            b'{"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}',
            QuotaExhaustedError,
        ),
        (429, b'{"error": {"type": "requests", "code": "rate_limit_exceeded"}}', RateLimitedError),
        (429, b'[{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]', RateLimitedError),
        (404, b'{"error": "model \'x\' not found"}', ModelNotFoundError),
        (404, b'{"error": {"code": "DeploymentNotFound", "message": "m"}}', ModelNotFoundError),
        (400, b'{"object": "error", "message": "m", "type": "invalid_model"}', ModelNotFoundError),
        (408, b"", ProviderUnavailableError),
        (409, b"", ProviderUnavailableError),
        (500, b"[]", ProviderUnavailableError),
        (503, b"\xff\xfe", ProviderUnavailableError),
        (529, b'{"type": "error", "error": {"type": "overloaded_error"}}', ProviderUnavailableError),
        (302, b"moved", BadAnswerError),
        (None, b'{"error": {"code": 429}}', RateLimitedError),
        (200, b'{"error": {"code": "402", "message": "m"}}', QuotaExhaustedError),
        (None, b'{"type": "error", "error": {"type": "overloaded_error"}}', ProviderUnavailableError),
        (None, b'{"error": {"type": "who knows"}}', ProviderUnavailableError),
    ],
)
def test_statuses_and_code_words_choose_the_class(
    status: int | None, body: bytes, kind: type[ProviderError]
) -> None:
    error = told(status, body, x_request_id="req_1")
    assert type(error) is kind
    facts = error.facts()
    assert (facts["provider"], facts["model"], facts["request_id"]) == ("openai", "gpt", "req_1")
    assert "openai 'gpt' answered" in str(error)


def test_prose_never_chooses() -> None:
    body = b'{"error": {"message": "rate limit exceeded, invalid api key, insufficient_quota"}}'
    assert type(told(400, body)) is RequestRefusedError


@pytest.mark.parametrize("status", [429, 503])
def test_when_to_come_back_is_a_fact(status: int) -> None:
    assert told(status, retry_after="7").facts()["retry_after_s"] == 7.0
    assert told(status, retry_after="Sun, 01 Mar 2026 12:00:09 GMT").facts()["retry_after_s"] == 9.0
    assert told(status, retry_after_ms="250").facts()["retry_after_s"] == 0.25
    assert told(status).facts()["retry_after_s"] is None
    assert "wait for 7 s" in str(told(status, retry_after="7"))


def test_the_key_is_in_no_message_and_long_texts_are_shortened() -> None:
    body = msgspec.json.encode({"error": {"message": f"wrong key {KEY}. " + "x" * 10_000, "code": f"k{KEY}"}})
    for error in (
        told(401, body),
        told(500, f"oops {KEY}".encode()),
        bad_answer(ASKED, "no JSON", f"<html>{KEY}".encode()),
        from_http(ASKED, HttpConnectionError("x", reason=f"lost {KEY}")),
    ):
        assert KEY not in str(error)
        assert KEY not in repr(error)
        assert KEY not in str(error.facts())
        assert len(str(error)) < 700


@pytest.mark.parametrize(
    ("fault", "received", "kind", "facts"),
    [
        (
            HttpTimeoutError("", timeout_s=1.0, phase="connect"),
            None,
            ProviderTimeoutError,
            {"phase": "connect"},
        ),
        (
            HttpTimeoutError("", timeout_s=1.0, phase="first_byte"),
            None,
            ProviderTimeoutError,
            {"phase": "first_token", "timeout_s": 1.0},
        ),
        (
            HttpTimeoutError("", timeout_s=1.0, phase="idle"),
            3,
            ProviderTimeoutError,
            {"phase": "between_tokens"},
        ),
        (HttpTimeoutError("", timeout_s=1.0, phase="total"), 3, ProviderTimeoutError, {"phase": "total"}),
        (HttpConnectionError("", reason="reset"), None, ProviderUnavailableError, {"retry_after_s": None}),
        (HttpConnectionError("", reason="reset"), 3, BrokenStreamError, {"received": 3}),
        (HttpDecodingError("", reason="cut"), 3, BrokenStreamError, {"received": 3}),
        (HttpDecodingError("", reason="no gzip"), None, BadAnswerError, {"reason": "no gzip"}),
        (HttpBodyTooLargeError("", max_body_bytes=9), 3, AnswerTooLargeError, {"max_bytes": 9}),
        (HttpRefusedError("", reason="a loopback address"), None, AddressRefusedError, {}),
    ],
)
def test_errors_of_the_http_client_become_errors_of_the_provider(
    fault: HttpError, received: int | None, kind: type[ProviderError], facts: dict[str, object]
) -> None:
    error = from_http(ASKED, fault, received=received)
    assert type(error) is kind
    assert facts.items() <= error.facts().items()


def test_a_refused_address_says_what_to_set() -> None:
    error = from_http(ASKED, HttpRefusedError("", reason="address 127.0.0.1 is a loopback address"))
    for word in ("127.0.0.1", "flow.toml", "allowed_hosts", "allow_private_networks"):
        assert word in str(error)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "detail", "innererror", "object"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    status=st.none() | st.integers(100, 999), body=st.binary(max_size=60) | anything.map(msgspec.json.encode)
)
def test_any_answer_becomes_an_error(status: int | None, body: bytes) -> None:
    error = told(status, body)
    assert isinstance(error, ProviderError)
    assert error.facts()["message"]


def test_what_is_no_error_object_is_none() -> None:
    for body in (b"", b"{", b"[]", b"{}", b"17", b'{"choices": []}', b"[" * 100_000, b"x" * (1 << 21)):
        assert read_error(body) is None
    assert read_error(b'{"error": "busy"}') == ErrorWords(message="busy")
