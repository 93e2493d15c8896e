"""The one tree of errors: what went wrong, where, with which value, and what to do.

Owns: every exception class FlowRx raises on purpose, and `Problem`, one finding of a validation.
Does not own: how a run reacts to an error (policies) or how it is printed (the command line).

Always holds: facts are attributes and the message is made from them; each class also derives from the builtin
a Python user would expect; `retriable` says whether trying again can help; `facts()` is serialisable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec


class FlowError(Exception):
    """Root of everything FlowRx raises on purpose.

    Facts are keyword arguments, kept in `__dict__` and given by `facts()`; the message is the first argument.
    """

    retriable: ClassVar[bool] = False

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.__dict__.update(facts)

    def __str__(self) -> str:
        return self.message

    def facts(self) -> dict[str, object]:
        """The error as plain data for events, dead letters and JSON: kind, message, public facts."""
        own = {name: _plain(fact) for name, fact in self.__dict__.items() if not name.startswith("_")}
        own.pop("message", None)
        return {"kind": type(self).__name__, "message": self.message, **own}


def describe_error(error: BaseException) -> dict[str, object]:
    """Any exception as plain data: ours with its facts, others with kind and message."""
    if isinstance(error, FlowError):
        return error.facts()
    return {"kind": type(error).__name__, "message": _message_of(error)}


def _message_of(error: BaseException) -> str:
    try:
        return str(error) or repr(error)
    except Exception as broken:  # noqa: BLE001 - another's __str__; the error it hides is told all the same
        return f"<{type(error).__name__} whose __str__ raised {type(broken).__name__}>"


def _shortened(text: str, limit: int = 200) -> str:
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}... ({len(text)} characters)"


def _plain(fact: object) -> object:
    if fact is None or isinstance(fact, bool | int | float | str):
        return fact
    if isinstance(fact, BaseException):
        return describe_error(fact)
    if isinstance(fact, Mapping):
        return {str(key): _plain(value) for key, value in fact.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - facts are untyped by nature
    if isinstance(fact, list | tuple | set | frozenset):
        items: list[object] = list(fact)  # pyright: ignore[reportUnknownArgumentType] - as above
        return [_plain(item) for item in items]
    if isinstance(fact, msgspec.Struct):
        return msgspec.to_builtins(fact, enc_hook=_plain)
    return repr(fact)


# --- before anything runs -----------------------------------------------------------------------------


class BuildError(FlowError):
    """The declaration is wrong; retrying cannot help."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One finding: where (file, line, path), what (message, value), and what to do (remedy)."""

    path: str
    message: str
    remedy: str = ""
    value: str | None = None
    """`repr` of the offending value, shortened; None when there is none to show."""
    file: str | None = None
    line: int | None = None
    severity: str = "error"
    """`error` stops the build; `warning` is reported and lets it go on."""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        head = f"{where}: {self.path}" if where else self.path
        shown = f" (got {self.value})" if self.value is not None else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{head}: {self.message}{shown}{remedy}"


class ValidationFailedError(BuildError, ValueError):
    """A workflow, configuration or input is invalid; `problems` holds every finding, not only the first."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem], /, *, what: str = "workflow") -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        count = len(problems)
        super().__init__(
            f"{what} is invalid: {count} problem{'s' if count != 1 else ''}\n{lines}",
            problems=tuple(problems),
        )


class DefinitionError(BuildError, TypeError):
    """A node, operator, source or sink is declared in a way FlowRx cannot use, or with such options."""


class UnknownNodeTypeError(BuildError, LookupError):
    """No node, source, sink or operator of that type is registered."""


class DuplicateNodeTypeError(BuildError, ValueError):
    """Two different implementations claim one node type."""


class ConfigError(BuildError, ValueError):
    """A node's or connector's configuration is invalid."""


class ExpressionError(BuildError, ValueError):
    """An expression does not compile: attributes `text`, `reason`, `line` and `column` (from 1), `remedy`."""

    text: str
    reason: str
    line: int | None
    column: int | None
    remedy: str

    def __init__(
        self,
        text: str,
        /,
        *,
        reason: str,
        line: int | None = None,
        column: int | None = None,
        remedy: str = "",
    ) -> None:
        place = "" if column is None else f" at column {column}"
        if line is not None and line > 1:
            place = f" at line {line}, column {column}"
        message = f"expression {_shortened(text)} does not compile: {reason}{place}"
        super().__init__(
            f"{message}; {remedy}" if remedy else message,
            text=text,
            reason=reason,
            line=line,
            column=column,
            remedy=remedy,
        )


class TransitionError(FlowError, ValueError):
    """A workflow state cannot follow another one."""


# --- while a workflow runs ----------------------------------------------------------------------------


class RunError(FlowError):
    """Something failed while a workflow ran."""


class NodeFailedError(RunError):
    """A node failed on a row; the node's own exception is `__cause__`."""


class RunFailedError(RunError):
    """The run did not complete; `result` holds what is known of it."""


class CoercionError(RunError, ValueError):
    """A value cannot be turned into the kind asked for without changing it."""


class ExpressionEvaluationError(RunError, ValueError):
    """An expression has no value for this row: attributes `text`, `reason`."""

    text: str
    reason: str

    def __init__(self, text: str, /, *, reason: str) -> None:
        super().__init__(f"expression {_shortened(text)} failed: {reason}", text=text, reason=reason)


class NodeTimeoutError(RunError, TimeoutError):
    """A node did not answer within its timeout."""

    retriable = True


class CircuitOpenError(RunError, ConnectionError):
    """Not called: too many calls before it failed. Attributes `resource`, `retry_after_s`."""

    retriable = True


class RequestTimeoutError(RunError, TimeoutError):
    """A whole request did not finish within its deadline."""


class LimitExceededError(RunError, MemoryError):
    """A declared bound (bytes of an output, children of a row) was exceeded by one row."""


class ContractError(RunError, TypeError):
    """A node, source, sink or operator broke its contract: a wrong return value, more rows than credit."""


class CancelledRowError(RunError):
    """The row was cancelled before it was complete."""


class StreamCancelledError(RunError):
    """A Stream was cancelled before its end; items not taken by then are gone. Attribute `stream`."""


class MissingFieldError(RunError, LookupError):
    """A field a node reads is not in the row: attributes `path`, `known` (the fields there are)."""


class WrongKindError(RunError, TypeError):
    """A node got a value of a kind it cannot work on: attributes `expected`, `given`."""


class ParseError(RunError, ValueError):
    """Text or bytes are not in the form declared: attributes `reason`, and `line`, `column` (from 1)."""


class ConflictError(RunError, ValueError):
    """Two things of one row claim the same name, so that one would be lost: attribute `name`."""


class ConnectorError(RunError):
    """A source or sink failed."""


class ConnectorUnavailableError(ConnectorError, ConnectionError):
    """The outside system cannot be reached; trying again may help."""

    retriable = True


class SourceError(ConnectorError, OSError):
    """A source cannot read, or what it reads is not what was declared."""

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message, **facts)


class SinkError(ConnectorError, OSError):
    """A sink could not make a row durable."""

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message, **facts)


class PositionLostError(SourceError):
    """A source cannot resume where it stopped (file truncated, replaced, offset expired)."""


class DeadLetterError(SinkError):
    """A dead letter could not be written, so its row is not settled: attributes `node`, `store`."""


class ProcessKilledError(RunError):
    """The process died on a record again and again, so it was put aside: attributes `node`, `deaths`."""


class LetterNotFoundError(RunError, LookupError):
    """A store of dead letters has no letter of that id, or no place of that name: attribute `letter`."""


class LetterStateError(RunError, ValueError):
    """A dead letter is in a state that does not allow what was asked: attributes `letter`, `state`."""


class PathRefusedError(RunError, PermissionError):
    """A path lies outside the roots the operator allows: attributes `path`, `roots`."""


class SecretNotFoundError(RunError, LookupError):
    """No secret of that name is set: attribute `name`."""


class HttpError(RunError):
    """An outbound HTTP exchange failed: attributes `method`, `url` (without credentials and query)."""


class HttpRefusedError(HttpError, PermissionError):
    """The guard does not allow the address or scheme; nothing was sent there. Attribute `reason`."""


class HttpTimeoutError(HttpError, TimeoutError):
    """The exchange, or a part of it, took too long; it may have had its effect.

    Attributes `timeout_s` and `phase`: `connect`, `first_byte`, `idle` or `total`.
    """

    retriable = True


class HttpConnectionError(HttpError, ConnectionError):
    """The server could not be reached or went away: attribute `reason`.

    The request may have had its effect.
    """

    retriable = True


class HttpBodyTooLargeError(HttpError, MemoryError):
    """The decoded body is larger than allowed: attribute `max_body_bytes`."""


class HttpDecodingError(HttpError, ValueError):
    """The body is not what its headers say: attribute `reason`."""


class HttpStatusError(HttpError, OSError):
    """The server answered with a status that was not expected: attributes `status`, `body_start`."""


class HttpUnavailableError(HttpStatusError, ConnectionError):
    """The server asks to come back later (429, 5xx): attribute `retry_after_s`, None when it gave none."""

    retriable = True


class ControlError(RunError, ValueError):
    """A run cannot be changed the way it was asked to: an unknown limit or node, or a bound that is none."""


class MiddlewareError(RunError):
    """A middleware failed around a run or a node call: attributes `middleware`, `hook`, `reason`, and `node`.

    Its own exception is `__cause__`; it is as `retriable` as that one. `node` is None around a run.
    """


class RefusedError(RunError, PermissionError):
    """A middleware does not let a run or a node call through: raise it in a hook, with the reason.

    What the result holds names the middleware: attributes `middleware`, `hook`, `reason`, `node`.
    """


class EngineError(RunError, RuntimeError):
    """The engine broke one of its own rules; a bug in FlowRx, worth a report."""


class RuntimeClosedError(RunError, RuntimeError):
    """The runtime or run was already shut down."""


class LifecycleError(RunError, RuntimeError):
    """The runtime of this process is in a state that does not allow the call: the message says what to do."""


class FieldMissingError(RunError, LookupError):
    """A connection or node asks for a field the value does not have."""
