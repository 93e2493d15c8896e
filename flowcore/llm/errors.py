"""What can go wrong with a provider of models, one class for each thing a caller would do about it.

Owns: the classes; they stand below `flowcore.errors` in the one tree.
Does not own: which status means which (`provider_error`, of flowcore.llm.statuses), retries, breakers.

Always holds: chosen by status code and by the code words of the answer's error object, never by its prose;
facts are `provider`, `model`, and where there was an answer `status` and `request_id`.
"""

from __future__ import annotations

from flowcore.errors import RunError


class ProviderError(RunError):
    """A provider did not give what was asked: attributes `provider`, `model`, `status`, `request_id`."""


class RequestRefusedError(ProviderError, ValueError):
    """The provider will never take this request (400, 422): attribute `code`, its own word for why."""


class AuthenticationError(ProviderError, PermissionError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""


class AddressRefusedError(AuthenticationError):
    """This runtime may not reach the provider's address; nothing was sent. Attribute `reason`."""


class ModelNotFoundError(RequestRefusedError, LookupError):
    """The provider has no such model, or the key may not use it (404)."""


class RequestTooLargeError(RequestRefusedError):
    """The prompt is longer than the model can take, or the request than the provider accepts (413)."""


class RateLimitedError(ProviderError, ConnectionError):
    """Too many requests or tokens (429): attribute `retry_after_s`, None when the provider did not say."""

    retriable = True


class QuotaExhaustedError(ProviderError, PermissionError):
    """No money or quota is left (402, or 429 with a code that says so): waiting does not help."""


class ProviderUnavailableError(ProviderError, ConnectionError):
    """The provider does not work now (5xx, 408, 409), or is not there: attribute `retry_after_s`."""

    retriable = True


class ProviderTimeoutError(ProviderError, TimeoutError):
    """Too slow: attributes `phase` (connect, first_token, between_tokens, total), `timeout_s`."""

    retriable = True


class BadAnswerError(ProviderError, ValueError):
    """What came is no answer: HTML, truncated, without choices: attributes `reason`, `body_start`."""


class BrokenStreamError(ProviderError, ConnectionError):
    """A stream ended before its answer did, or broke: attributes `reason`, `received` (characters)."""

    retriable = True


class AnswerTooLargeError(ProviderError, MemoryError):
    """The answer is larger than allowed; the rest was not read: attribute `max_bytes`."""


class ContentRefusedError(ProviderError, ValueError):
    """The provider's filter, or the model, will not answer this: attribute `reason`."""


class UnknownToolError(ProviderError, LookupError):
    """The model asks for a tool it was not given: attributes `tool`, `known`."""


class ToolArgumentsError(ProviderError, ValueError):
    """The arguments a model gives a tool are not what its schema says: attributes `tool`, `problems`."""


class OutputInvalidError(ProviderError, ValueError):
    """The answer is not what was asked for, after every repair: attributes `problems`, `attempts`, `text`."""


class BudgetExceededError(RunError):
    """A budget of tokens or money is spent: attributes `budget`, `limit`, `spent`, `unit`, `resets_in_s`."""


class NoEndpointError(ProviderError, ConnectionError):
    """Every endpoint of a call failed or is known to be down: attribute `tried`, what each of them said."""

    retriable = True
