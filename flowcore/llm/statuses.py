"""Which status, and which word of an error object, is which of our errors.

Owns: reading error objects of every provider (`read_error`), the table, `provider_error`, `from_http`.
Does not own: the classes (errors), headers of limits (rate_headers), retrying.

Pure. Always holds: chosen by status and code words, never by prose; what the provider said is quoted,
shortened, and free of the secrets that were named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

import msgspec

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
from flowcore.retry_after import retry_after_s
from flowcore.values import Secret

_BY_CLASS: Final[dict[type[ProviderError], str]] = {
    QuotaExhaustedError: """
        insufficient_quota billing_hard_limit_reached billing_not_active billing_error insufficient_balance
        exceeded_current_quota_error insufficient_credits payment_required
    """,
    RequestTooLargeError: """
        context_length_exceeded string_above_max_length request_too_large exceed_context_size_error
        context_window_exceeded max_tokens_exceeded
    """,
    ModelNotFoundError: """
        model_not_found not_found_error deploymentnotfound deployment_not_found model_not_available
        invalid_model unknown_model model_not_supported
    """,
    AuthenticationError: """
        invalid_api_key authentication_error permission_error permission_denied unauthenticated
        invalid_authentication account_deactivated invalid_token
    """,
    ContentRefusedError: """
        content_filter content_policy_violation responsibleaipolicyviolation content_blocked
    """,
    RateLimitedError: "rate_limit_exceeded rate_limit_error rate_limited too_many_requests",
    ProviderUnavailableError: """
        overloaded_error overloaded server_error api_error internal_error internal_server_error
        service_unavailable unavailable engine_overloaded timeout_error
    """,
}
_WORDS: Final = {word: kind for kind, words in _BY_CLASS.items() for word in words.split()}
_STATUSES: Final[dict[int, type[ProviderError]]] = {
    401: AuthenticationError,
    402: QuotaExhaustedError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    408: ProviderUnavailableError,
    409: ProviderUnavailableError,
    413: RequestTooLargeError,
    425: ProviderUnavailableError,
    429: RateLimitedError,
}
_REMEDIES: Final[dict[type[ProviderError], str]] = {
    AuthenticationError: "check api_key and what it may do",
    QuotaExhaustedError: "waiting does not help: raise the quota, or ask another provider",
    ModelNotFoundError: "check model, and base_url",
    RequestTooLargeError: "shorten the prompt, or ask a model that takes more",
    ContentRefusedError: "change the prompt, or let on_error take the row",
    RequestRefusedError: "correct the request",
    BadAnswerError: "check base_url",
}
_SERVER_FAULT: Final = 500
_CLIENT_FAULT: Final = 400
_REDIRECT: Final = 300
_MOST_SHOWN: Final = 300
_MOST_READ: Final = 1 << 20
_DELAY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_PHASES: Final = {
    "connect": ("connect", "was not connected", "timeouts.connect"),
    "first_byte": ("first_token", "gave no first token", "timeouts.first_token"),
    "idle": ("between_tokens", "gave nothing more", "timeouts.between_tokens"),
    "total": ("total", "has not answered", "timeouts.total"),
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What every error of one call says, and what none may say."""

    provider: str
    model: str
    secrets: tuple[Secret, ...] = ()
    """What must not be in a message, though the provider repeats it."""

    def quoted(self, text: str, most: int = _MOST_SHOWN) -> str:
        """What the provider said, in quotes, shortened, without the secrets."""
        for secret in self.secrets:
            hidden = secret.reveal()
            if hidden:
                text = text.replace(hidden, "***")
        text = text.strip()
        return repr(text) if len(text) <= most else f"{text[:most]!r}..."

    def __str__(self) -> str:
        return f"{self.provider} {self.model!r}" if self.model else self.provider


class ErrorWords(msgspec.Struct, frozen=True, kw_only=True):
    """What an error object says."""

    message: str = ""
    words: tuple[str, ...] = ()
    """Its code words in lower case, the most exact first."""
    status: int | None = None
    """A number it gives as its code."""
    retry_after_s: float | None = None
    """How long it asks to wait, as Google says in the details of an error."""


def read_error(body: bytes) -> ErrorWords | None:
    """The error object in a body; None when there is none.

    Read are the forms `{error: {message, type, code}}` (OpenAI, Anthropic, Azure with `innererror`, Google
    also within a list), `{error: text}` (Ollama, Hugging Face), `{message, type, code}` (Mistral) and
    `{detail: ...}` (FastAPI).
    """
    if len(body) > _MOST_READ:
        return None
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return error_in(found)


def error_in(found: Any) -> ErrorWords | None:
    """As `read_error`, of a parsed body."""
    if isinstance(found, list) and found:
        found = cast("list[Any]", found)[0]
    if not isinstance(found, dict):
        return None
    outer = cast("dict[str, Any]", found)
    error: Any = outer.get("error")
    if isinstance(error, str) and error:
        kind: Any = outer.get("error_type")
        return ErrorWords(message=error, words=_words(kind))
    if isinstance(error, dict):
        return _of_object(cast("dict[str, Any]", error))
    if outer.get("object") == "error" or outer.get("type") == "error":
        return _of_object(outer)
    detail: Any = outer.get("detail")
    if detail:
        return ErrorWords(message=detail if isinstance(detail, str) else _text(detail))
    return _of_object(outer) if {"message", "code"} <= outer.keys() else None


def _of_object(error: dict[str, Any]) -> ErrorWords:
    inner: Any = error.get("innererror")
    inner_code: Any = cast("dict[str, Any]", inner).get("code") if isinstance(inner, dict) else None
    code: Any = error.get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == len("400"):
        status = int(code)
    message: Any = error.get("message")
    return ErrorWords(
        message=message if isinstance(message, str) else _text(message),
        words=_words(inner_code, code, error.get("type"), error.get("status")),
        status=status if status is not None and _CLIENT_FAULT <= status < _SERVER_FAULT + 100 else None,
        retry_after_s=_delay_in(error.get("details")),
    )


def _delay_in(details: Any) -> float | None:
    """Seconds of `{retryDelay: 34.5s}` (google.rpc.RetryInfo); None when there is no such detail."""
    for detail in cast("list[Any]", details) if isinstance(details, list) else ():
        said: Any = cast("dict[str, Any]", detail).get("retryDelay") if isinstance(detail, dict) else None
        found = _DELAY.fullmatch(said) if isinstance(said, str) else None
        if found is not None:
            return float(found[1])
    return None


def _words(*found: Any) -> tuple[str, ...]:
    return tuple(word.strip().lower()[:100] for word in found if isinstance(word, str) and word.strip())


def _text(value: Any) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()


def class_of(status: int | None, words: Sequence[str] = ()) -> type[ProviderError]:
    """Our class for a status and code words; the words win, the first one known counts.

    Args:
        status: None, or one below 400, is an error object where an answer was expected.
        words: in lower case.
    """
    for word in words:
        kind = _WORDS.get(word)
        if kind is not None:
            return kind
    if status is None or status < _REDIRECT:
        return ProviderUnavailableError
    if status < _CLIENT_FAULT:
        return BadAnswerError
    return _STATUSES.get(status, ProviderUnavailableError if status >= _SERVER_FAULT else RequestRefusedError)


def provider_error(
    asked: Asked, status: int | None, said: ErrorWords | bytes, headers: Mapping[str, str], now: datetime
) -> ProviderError:
    """The error an answer means.

    Args:
        asked: of whom.
        status: None: it came inside a stream.
        said: the error object, or a body without one.
        headers: names in lower case: `retry-after`, the name of the request.
        now: what dates in headers are counted from.
    """
    error = ErrorWords(message=said.decode("utf-8", "replace")) if isinstance(said, bytes) else said
    text, words = error.message, error.words
    if error.status is not None and (status is None or status < _REDIRECT):
        status = error.status
    kind = class_of(status, words)
    facts: dict[str, Any] = {"status": status, "request_id": request_id(headers)}
    remedy = _REMEDIES.get(kind, "")
    if issubclass(kind, RequestRefusedError):
        facts["code"] = words[0] if words else None
    elif kind is ContentRefusedError:
        facts["reason"] = ", ".join(words)
    elif kind is BadAnswerError:
        facts["reason"], facts["body_start"] = f"status {status}", asked.quoted(text, 80)
    elif issubclass(kind, RateLimitedError | ProviderUnavailableError):
        wait_s = retry_after_s(headers, now)
        wait_s = facts["retry_after_s"] = error.retry_after_s if wait_s is None else wait_s
        remedy = "" if wait_s is None else f"it asks to wait for {wait_s:g} s"
    answered = "answered with an error" if status is None else f"answered {status}"
    said_so = f": {asked.quoted(text)}" if text.strip() else ""
    called = f" ({', '.join(map(asked.quoted, words))})" if words else ""
    return kind(
        f"{asked} {answered}{called}{said_so}" + (f"; {remedy}" if remedy else ""),
        provider=asked.provider,
        model=asked.model,
        **facts,
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's name of an exchange, for its support; None when it gives none."""
    for name in ("x-request-id", "request-id", "apim-request-id", "cf-ray"):
        found = headers.get(name)
        if found:
            return found[:200]
    return None


def from_http(asked: Asked, fault: HttpError, *, received: int | None = None) -> ProviderError:
    """Our error of a provider for an error of the HTTP client.

    Args:
        asked: of whom.
        fault: what the client raised; make it the `__cause__`.
        received: characters of the answer that came before, of a stream that had begun; else None.
    """
    facts: dict[str, Any] = {
        "provider": asked.provider,
        "model": asked.model,
        "status": None,
        "request_id": None,
    }
    reason = str(getattr(fault, "reason", fault))
    if isinstance(fault, HttpTimeoutError):
        phase, what, setting = _PHASES[getattr(fault, "phase", "total")]
        timeout_s = getattr(fault, "timeout_s", None)
        return ProviderTimeoutError(
            f"{asked} {what} within {timeout_s:g} s; raise {setting}, or ask for less",
            phase=phase,
            timeout_s=timeout_s,
            **facts,
        )
    if isinstance(fault, HttpRefusedError):
        return AddressRefusedError(
            f"{asked} may not be reached from here: {reason}. Both are set in flow.toml (allowed_hosts, "
            "allow_private_networks), or in Python by FlowRuntime(allowed_hosts=...)",
            reason=reason,
            **facts,
        )
    if isinstance(fault, HttpBodyTooLargeError):
        most = getattr(fault, "max_body_bytes", None)
        return AnswerTooLargeError(
            f"the answer of {asked} is larger than max_answer_bytes={most}; the rest was not read. Ask for "
            "less, or raise it",
            max_bytes=most,
            **facts,
        )
    if received is not None and isinstance(fault, HttpConnectionError | HttpDecodingError):
        return broken_stream(asked, asked.quoted(reason), received)
    if isinstance(fault, HttpDecodingError):
        return BadAnswerError(
            f"the answer of {asked} cannot be read: {asked.quoted(reason)}; check base_url",
            reason=reason,
            body_start="",
            **facts,
        )
    return ProviderUnavailableError(
        f"{asked} was not reached: {asked.quoted(reason)}", retry_after_s=None, **facts
    )


def broken_stream(asked: Asked, reason: str, received: int) -> BrokenStreamError:
    """A stream that ended before its answer did."""
    return BrokenStreamError(
        f"the stream of {asked} broke after {received:,} characters of its answer: {reason}",
        provider=asked.provider,
        model=asked.model,
        status=None,
        request_id=None,
        reason=reason,
        received=received,
    )


def bad_answer(asked: Asked, reason: str, body: bytes, *, status: int | None = 200) -> BadAnswerError:
    """What came is no answer.

    Args:
        asked: of whom.
        reason: what is wrong with it.
        body: of which the beginning is shown.
        status: of the answer.
    """
    start = asked.quoted(body[:400].decode("utf-8", "replace"), 120)
    return BadAnswerError(
        f"what {asked} gave is no answer: {reason}; it starts with {start}. Check base_url",
        provider=asked.provider,
        model=asked.model,
        status=status,
        request_id=None,
        reason=reason,
        body_start=start,
    )
